"""Hand requests the embedding of the negative prompt instead of encoding it in each."""

from __future__ import annotations

from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import Attachment, Call, Proceed, attachment
from diffopt.backends.runtime.weights_mark import weights_mark

Pipe = TypeVar("Pipe")


def fold_negative_prompt(pipe: Pipe, *, negative_prompt: str) -> Pipe:
    """Encode this negative prompt once, and give it to each guided request that asks for no other.

    It is encoded again when the text encoder's weights change. Raises BackendError if the pipeline takes no embedding of
    its negative prompt.
    """
    state = attachment(pipe)
    if "negative_prompt_embeds" not in state.parameters:
        raise BackendError(f"{type(pipe).__name__} takes no embedding of its negative prompt")
    if state.noted("pipeline", "fold_negative_prompt"):
        raise BackendError("the negative prompt is a constant already")
    folded = FoldedPrompt(pipe, state, negative_prompt)
    state.layers.append(folded.request)
    state.note("pipeline", "fold_negative_prompt", negative_prompt=negative_prompt)
    state.witnesses.append(folded.witness)
    return pipe


class FoldedPrompt:
    """The embedding, and the weights it was made by."""

    def __init__(self, pipe: Any, state: Attachment, text: str) -> None:
        self._pipe = pipe
        self._state = state
        self._text = text
        self._known: Any = None
        self._mark: Any = None
        self._requests = 0

    def request(self, proceed: Proceed, call: Call) -> Any:
        """Run one pipeline call with the embedding, where it asks for this negative prompt."""
        prompts = self._prompts(call)
        if not prompts:
            return proceed(call)
        self._requests += self._state.counting
        embedding = self._embedding().expand(prompts, -1, -1)
        return proceed({**call, "negative_prompt": None, "negative_prompt_embeds": embedding})

    def witness(self) -> Witness:
        detail = f"{self._requests} requests took the negative prompt's embedding as it was"
        return Witness("fold_negative_prompt", self._requests, detail)

    def _prompts(self, call: Call) -> int:
        """Return how many prompts a request has; 0 where its negative prompt is not the one that is known."""
        scale = call.get("guidance_scale", self._state.call_default("guidance_scale"))
        if not (isinstance(scale, int | float) and scale > 1) or call.get("cross_attention_kwargs"):
            return 0
        known = (self._text,) if self._text else (None, "")
        if call.get("negative_prompt_embeds") is not None or call.get("negative_prompt") not in known:
            return 0
        given, embeds = call.get("prompt"), call.get("prompt_embeds")
        if isinstance(given, str):
            return 1
        if isinstance(given, list):
            return len(given)
        return int(embeds.shape[0]) if embeds is not None else 0

    def _embedding(self) -> Any:
        import torch

        mark = weights_mark([self._pipe.text_encoder])
        if self._known is None or mark != self._mark:
            with torch.no_grad():
                device = self._pipe._execution_device
                self._known, self._mark = self._pipe.encode_prompt(self._text, device, 1, False)[0], mark
        return self._known
