"""Hold a text encoder's weights only while it encodes something new."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import Attachment, Call, Proceed, attachment, component_name
from diffopt.backends.runtime.reuse_prompt_embeddings import MEMORY, PromptMemory

Pipe = TypeVar("Pipe")


def unload_encoder(pipe: Pipe, component: str, *, entries: int = 64) -> Pipe:
    """Let go of the encoder's weights when the denoiser starts, and read them again from the model for a new prompt.

    entries: answers that are remembered, so that prompts that come again need no weights. Raises BackendError if the
    encoder does not lie in the pipeline's model folder, or is adapted, quantized, compiled, exported or remembered already.
    """
    name, state = component_name(pipe, component), attachment(pipe)
    encoder = getattr(pipe, name)
    for earlier in ("export", "compile", "quantize", "unload_encoder"):
        if state.noted(name, earlier) or state.noted("pipeline", earlier):
            raise BackendError(f"{name}: unload_encoder cannot follow {earlier}")
    if MEMORY in encoder.__dict__:
        raise BackendError(f"{name} has its prompts remembered already")
    if getattr(encoder, "peft_config", None):
        raise BackendError(
            f"{name} is adapted: its weights are not those of the model's folder", "fuse nothing into it"
        )
    memory = PromptMemory(encoder, state, name, entries, marked=False)
    weights = Weights(pipe, name, encoder, state)
    encoder.__dict__[MEMORY] = memory
    memory.before = weights.load

    @functools.wraps(encoder.forward)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return memory.forward(*args, **kwargs)

    encoder.__dict__["forward"] = forward
    live: Any = pipe
    getattr(live, component_name(pipe, "denoiser")).register_forward_pre_hook(lambda *_: weights.unload())
    state.layers.append(weights.request)
    state.note(name, "unload_encoder", entries=entries)
    state.witnesses.append(weights.witness)
    return pipe


class Weights:
    """The parameters of an encoder: there, or let go of. Buffers stay, and so do shapes, types and devices."""

    def __init__(self, pipe: Any, name: str, encoder: Any, state: Attachment) -> None:
        self._name = name
        self._encoder = encoder
        self._state = state
        self._model = str(getattr(pipe, "name_or_path", "") or pipe.config.get("_name_or_path", ""))
        first = next(encoder.parameters())
        self._dtype = first.dtype
        self._bytes = sum(p.numel() * p.element_size() for p in encoder.parameters())
        self._held = True
        self._unloads = self._loads = 0

    def request(self, proceed: Proceed, call: Call) -> Any:
        """Run one pipeline call, and hold no weights after it, also when it raises."""
        try:
            return proceed(call)
        finally:
            self.unload()

    def unload(self) -> None:
        """Let go of the weights, where they are there."""
        import torch

        if not self._held:
            return
        self._held = False
        for module in self._encoder.modules():
            for key, value in module._parameters.items():
                if value is not None:
                    # One number seen in every place: a pipeline asks its parts for their device and type.
                    hollow = torch.zeros((), dtype=value.dtype, device=value.device).expand(value.shape)
                    module._parameters[key] = torch.nn.Parameter(hollow, requires_grad=False)
        self._unloads += self._state.counting

    def load(self) -> None:
        """Read the weights again, where they are not there."""
        import torch

        if self._held:
            return
        kind = type(self._encoder)
        try:
            fresh = kind.from_pretrained(self._model, subfolder=self._name, dtype=self._dtype)
        except OSError as error:
            raise BackendError(f"{self._name} cannot be read again from {self._model!r}", str(error)[:120]) from error
        owned = dict(fresh.named_modules())
        with torch.no_grad():
            for path, module in self._encoder.named_modules():
                for key in module._parameters:
                    value = owned[path]._parameters[key]
                    if value is not None:
                        module._parameters[key] = torch.nn.Parameter(
                            value.to(module._parameters[key].device), requires_grad=False
                        )
        self._held = True
        self._loads += self._state.counting

    def witness(self) -> Witness:
        size = f"{self._bytes / 2**20:.1f} MiB"
        return Witness(
            "unload_encoder", self._unloads, f"{self._name}: {size} let go {self._unloads} times, read {self._loads}"
        )
