"""Freeze what the cross-attentions of a denoiser give out, beside a cache of its features (T-GATE, arXiv 2404.02747)."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import Attachment, Call, Proceed, attachment, component_name
from diffopt.backends.runtime.replaced import replaced

if TYPE_CHECKING:
    import torch

Pipe = TypeVar("Pipe")


def freeze_cross_attention(pipe: Pipe, component: str, *, gate: float) -> Pipe:
    """Let each cross-attention give out, from the fraction `gate` of a request's steps on, what it gave when last computed.

    Where guidance ends midway, the conditional half of that is taken.
    Raises BackendError if the component has no cross-attention of its own, or was frozen, compiled or exported already.
    """
    name, state = component_name(pipe, component), attachment(pipe)
    for earlier in ("export", "compile", "freeze_cross_attention"):
        if state.noted(name, earlier) or state.noted("pipeline", earlier):
            raise BackendError(f"{name}: freeze_cross_attention cannot follow {earlier}")
    found = [
        module.attn2
        for module in getattr(pipe, name).modules()
        if type(module).__name__ == "BasicTransformerBlock" and getattr(module.attn2, "is_cross_attention", False)
    ]
    if not found:
        raise BackendError(f"{name} has no cross-attention of its own to freeze")
    frozen = FrozenAttentions(state, pipe, name, gate)
    for index, attention in enumerate(found):
        attention.__dict__["forward"] = frozen.freezing(index, attention.forward)
    state.layers.append(frozen.request)
    state.note(name, "freeze_cross_attention", gate=gate)
    state.witnesses.append(frozen.witness)
    return pipe


class FrozenAttentions:
    """What each cross-attention gave out last in the request that runs. Empty between requests."""

    def __init__(self, state: Attachment, pipe: Any, name: str, gate: float) -> None:
        self._state, self._pipe, self._name, self._gate = state, pipe, name, gate
        self._inside = False
        self._step = 0
        self._kept: dict[int, torch.Tensor] = {}
        self._calls = self._hits = 0

    def request(self, proceed: Proceed, call: Call) -> Any:
        """Run one pipeline call, and leave nothing behind, also when it raises."""
        self._reset(inside=True)
        try:
            with self._stepping():
                return proceed(call)
        finally:
            self._reset(inside=False)

    def freezing(self, index: int, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return what takes the place of a cross-attention's forward."""

        @functools.wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if not self._inside:
                return original(*args, **kwargs)
            asked = args[0] if args else kwargs["hidden_states"]
            self._calls += self._state.counting
            kept = self._fitting(index, asked.shape[0]) if self._is_frozen() else None
            if kept is not None:
                self._hits += self._state.counting
                return kept
            self._kept[index] = original(*args, **kwargs)
            return self._kept[index]

        return forward

    def witness(self) -> Witness:
        """Tell how many cross-attentions were not computed."""
        detail = f"{self._name}: {self._hits} of {self._calls} cross-attentions not computed"
        return Witness("freeze_cross_attention", self._hits, detail)

    def _is_frozen(self) -> bool:
        return self._step >= round(self._gate * len(self._pipe.scheduler.timesteps))

    def _fitting(self, index: int, rows: int) -> torch.Tensor | None:
        """Return what was kept for a batch of so many rows; of both halves of guidance, the conditional one."""
        kept = self._kept.get(index)
        if kept is None or kept.shape[0] not in (rows, 2 * rows):
            return None
        return kept[-rows:]

    @contextlib.contextmanager
    def _stepping(self) -> Iterator[None]:
        """Count the calls of the scheduler for a while."""
        step = self._pipe.scheduler.step

        @functools.wraps(step)
        def stepping(*args: Any, **kwargs: Any) -> Any:
            self._step += 1
            return step(*args, **kwargs)

        with replaced(self._pipe.scheduler, step=stepping):
            yield

    def _reset(self, *, inside: bool) -> None:
        self._inside = inside
        self._step = 0
        self._kept = {}
