"""Tell the caches of diffusers which denoiser call is which, in pipelines that do not."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import Call, Proceed, attachment, component_name
from diffopt.backends.runtime.replaced import replaced

Pipe = TypeVar("Pipe")


def open_cache_context(pipe: Pipe, component: str = "transformer") -> Pipe:
    """Open a cache context round every call of the denoiser: one for each turn within a step.

    Without it, the stateful caches of diffusers raise "No cache context is set" in pipelines that open none. What the
    caches keep is dropped at both ends of a request, also when it raises, which diffusers leaves to the pipeline.
    """
    name, state = component_name(pipe, component), attachment(pipe)
    if state.noted(name, "open_cache_context"):
        raise BackendError(f"the cache context of {name} is opened already")
    contexts = Contexts(pipe, getattr(pipe, name))
    state.layers.append(contexts.request)
    state.note(name, "open_cache_context")
    state.witnesses.append(
        lambda: Witness("open-cache-context", contexts.opened, f"{name}: {contexts.opened} calls in a context")
    )
    return pipe


class Contexts:
    """Where the current request stands, in steps and turns."""

    def __init__(self, pipe: Any, denoiser: Any) -> None:
        self.opened = 0
        self._pipe = pipe
        self._denoiser = denoiser
        self._turn = 0

    def request(self, proceed: Proceed, call: Call) -> Any:
        """Run one pipeline call with contexts, and leave nothing in the caches."""
        from diffusers.hooks import HookRegistry

        # Hooks replace `forward` in place, so ours goes round whatever stands there now, for this request alone.
        registry = HookRegistry.check_if_exists_or_initialize(self._denoiser)
        scheduler, denoiser = self._pipe.scheduler, self._denoiser
        self._turn = 0
        registry.invalidate_child_registries_cache()
        registry.reset_stateful_hooks(recurse=True)
        with (
            replaced(denoiser, forward=self._within(denoiser.forward)),
            replaced(scheduler, step=self._stepping(scheduler.step)),
        ):
            try:
                return proceed(call)
            finally:
                registry.reset_stateful_hooks(recurse=True)

    def _within(self, original: Any) -> Any:
        # Private, and what `CacheMixin.cache_context` does; transformers without the mixin have no other way (0.42).
        from diffusers.hooks.hooks import CacheContext, _set_cache_context

        @functools.wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            turn, self._turn = self._turn, self._turn + 1
            self.opened += 1
            _set_cache_context(self._denoiser, CacheContext(f"turn {turn}"))
            try:
                return original(*args, **kwargs)
            finally:
                _set_cache_context(self._denoiser, None)

        return forward

    def _stepping(self, original: Any) -> Any:
        @functools.wraps(original)
        def step(*args: Any, **kwargs: Any) -> Any:
            self._turn = 0
            return original(*args, **kwargs)

        return step
