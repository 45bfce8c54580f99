"""What is attached to a live pipeline: call defaults, layers round its call, transforms, and what they witnessed.

Everything hangs on the pipeline object itself; there is no module-level state. The pipeline's class is replaced once
by a subclass of the same name whose `__call__` runs through the layers.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from diffopt.backends.base import JSON, BackendError, Witness

Call: TypeAlias = "dict[str, Any]"
Proceed: TypeAlias = "Callable[[Call], Any]"
Layer: TypeAlias = "Callable[[Proceed, Call], Any]"
"""Takes the rest of the call and the call's arguments by name; a layer attached later stands further out."""

ATTRIBUTE = "_diffopt"
logger = logging.getLogger("diffopt")


@dataclass
class Attachment:
    """The state diffopt keeps on one pipeline. Not shared between pipelines, not for two threads at once.

    outside: `torch` answers calls that an engine was not made for by the kept torch component, `raise` refuses them.
    counting: off while diffopt itself runs the pipeline to look at it; witnesses are about the user's requests.
    """

    pipeline_class: type
    parameters: tuple[str, ...]
    defaults: Call = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    transforms: dict[str, list[JSON]] = field(default_factory=dict)
    witnesses: list[Callable[[], Witness]] = field(default_factory=list)
    said: set[str] = field(default_factory=set)
    engines: list[str] = field(default_factory=list)
    outside: str = "torch"
    counting: bool = True

    def leave_engine(self, message: str) -> None:
        """Say once that a call runs in torch instead of an engine. Raises BackendError where the user wants none to."""
        if self.outside == "raise" and self.counting:
            raise BackendError(message.replace("runs in torch instead of", "has a call that is not for"))
        self.say_once(message)

    def say_once(self, message: str) -> None:
        """Log a warning the first time it comes up on this pipeline."""
        if self.counting and message not in self.said:
            self.said.add(message)
            logger.warning(message)

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Keep a call of the pipeline out of the witnesses."""
        self.counting = False
        try:
            yield
        finally:
            self.counting = True

    def call_default(self, name: str) -> Any:
        """Return the default that the pipeline's class gives an argument of its call; `None` where it has none."""
        parameter = inspect.signature(self.pipeline_class.__call__).parameters.get(name)
        return None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default

    def note(self, component: str, transform: str, **arguments: JSON) -> None:
        """Record a transform of a component, in order of application; engines are keyed by it."""
        self.transforms.setdefault(component, []).append({"transform": transform, **arguments})

    def noted(self, component: str, transform: str) -> bool:
        entries = self.transforms.get(component, [])
        return any(isinstance(entry, Mapping) and entry["transform"] == transform for entry in entries)


def attachment(pipe: Any) -> Attachment:
    """Return what is attached to the pipeline, attaching it first where nothing is."""
    found = pipe.__dict__.get(ATTRIBUTE)
    if isinstance(found, Attachment):
        return found
    base = type(pipe)
    parameters = tuple(inspect.signature(base.__call__).parameters)[1:]
    made = Attachment(base, parameters)
    pipe.__dict__[ATTRIBUTE] = made
    pipe.__class__ = _layered(base)
    return made


def component_name(pipe: Any, name: str) -> str:
    """Return the name under which the pipeline holds the component; `denoiser` is its unet or transformer."""
    names = ("unet", "transformer") if name == "denoiser" else (name,)
    for candidate in names:
        if getattr(pipe, candidate, None) is not None:
            return candidate
    raise BackendError(f"{type(pipe).__name__} has no component {name!r}", f"it has {', '.join(pipe.components)}")


def _layered(base: type) -> type:
    original = base.__call__

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        state: Attachment = self.__dict__[ATTRIBUTE]
        given = dict(zip(state.parameters, args, strict=False))
        if len(args) > len(given) or given.keys() & kwargs.keys():
            return original(self, *args, **kwargs)  # raises the TypeError Python has for it
        proceed: Proceed = functools.partial(_proceed, original, self)
        for layer in state.layers:
            proceed = functools.partial(layer, proceed)
        return proceed({**state.defaults, **given, **kwargs})

    names = {
        "__call__": call,
        "__module__": base.__module__,
        "__doc__": base.__doc__,
        "__qualname__": base.__qualname__,
    }
    return type(base.__name__, (base,), names)


def _proceed(original: Callable[..., Any], pipe: Any, call: Call) -> Any:
    prompts = call.get("prompt")
    if isinstance(prompts, list):
        # Pipelines refuse one negative prompt for several prompts; as a default it is meant for each of them.
        alone = {n: v for n, v in call.items() if n.startswith("negative_prompt") and isinstance(v, str)}
        call = {**call, **{name: [value] * len(prompts) for name, value in alone.items()}}
    return original(pipe, **call)
