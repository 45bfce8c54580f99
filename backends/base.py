"""The contracts of the room: what an engine is made of, what names it, who builds it, what reports that it ran."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
Tensors: TypeAlias = "tuple[torch.Tensor, ...]"
LARGEST_BATCH = 32
"""The greatest batch of an engine, where nobody names one and its format asks for it."""
Run: TypeAlias = "Callable[[Tensors], Tensors]"
"""A loaded engine: tensors in, fresh tensors out. Not to be called by two threads at once."""


class BackendError(Exception):
    """Say in one line what cannot be built, loaded or applied, and what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class Witness:
    """What one transform really did in this process."""

    transform: str
    count: int
    detail: str

    def to_json(self) -> dict[str, JSON]:
        return {"transform": self.transform, "count": self.count, "detail": self.detail}


@dataclass(frozen=True)
class Axis:
    """A dimension whose size is open: its name, and the least, the usual and the greatest size it comes in."""

    name: str
    least: int
    usual: int
    most: int

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.usual <= self.most:
            raise BackendError(f"{self.name}: {self.least}, {self.usual}, {self.most} do not rise from 1 on")


Axes: TypeAlias = "Mapping[int, Axis]"
"""The open dimensions of one input, by their position."""


@dataclass(frozen=True)
class Part:
    """A torch module with tensor arguments and results only, and the inputs it was seen with.

    `batched` tells for each input whether its first dimension is the batch; such inputs may come in any batch size.
    `open` names, where it is given, every open dimension of each input instead. `calls` are inputs of recorded calls, for
    builders that take ranges from them.
    """

    name: str
    module: torch.nn.Module
    inputs: Tensors
    input_names: tuple[str, ...]
    batched: tuple[bool, ...]
    open: tuple[Axes, ...] | None = None
    calls: tuple[Tensors, ...] = ()

    def axes(self) -> tuple[Axes, ...]:
        """Return the open dimensions of each input."""
        if self.open is not None:
            return self.open
        batch = next((value.shape[0] for value, b in zip(self.inputs, self.batched, strict=True) if b), 1)
        axis = Axis("batch", 1, batch, max(batch, LARGEST_BATCH))
        return tuple({0: axis} if is_open else {} for is_open in self.batched)


@dataclass(frozen=True)
class Program:
    """What is to become one engine: an `fx` graph that calls parts as submodules, with inputs of fixed sizes.

    The graph module runs in torch as it is and holds each part under its name; every `call_module` node calls one.
    """

    graph: torch.fx.GraphModule
    parts: Mapping[str, Part]
    inputs: Tensors
    input_names: tuple[str, ...]


@dataclass(frozen=True)
class EngineKey:
    """Everything an engine depends on; equal keys, equal engines."""

    backend: str
    weights: str
    transforms: Sequence[JSON]
    inputs: Sequence[JSON]
    options: Mapping[str, JSON]
    versions: Mapping[str, str]
    device: str
    format: int = 1

    def to_json(self) -> dict[str, JSON]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def hash(self) -> str:
        """Return the name of the engine's folder: 24 hexadecimal digits."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class EngineOptions:
    """How an engine computes. `dynamic_int8`: layers with 8-bit weights multiply integers."""

    precision: str = "f32"
    dynamic_int8: bool = False

    def to_json(self) -> dict[str, JSON]:
        return {"precision": self.precision, "dynamic_int8": self.dynamic_int8}


@dataclass(frozen=True)
class Capabilities:
    """What a builder can do, as data."""

    precisions: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu",)
    dynamic_int8: bool = False


class Builder(Protocol):
    """Turns parts and programs into engine files, and engine files into something to run.

    Contract: `build` and `build_program` write only below `folder`, and leave there all that `load` needs; `load`
    reads only below `folder`, so the first use of an engine and every later one run the same bits. Both are free of
    global state and may run in several processes at once. A builder sends nothing anywhere.
    """

    name: str
    packages: tuple[str, ...]
    capabilities: Capabilities

    def available(self) -> str | None:
        """Return None, or why this builder cannot work here."""

    def build(self, part: Part, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        """Write an engine of one part, for any batch size; return facts for `engine.json`."""

    def build_program(self, program: Program, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        """Write one engine of a whole program; return facts for `engine.json`."""

    def load(self, folder: Path, options: EngineOptions) -> Run:
        """Load what `build` or `build_program` wrote."""


BUILDERS: Mapping[str, tuple[str, str]] = {
    "openvino": ("diffopt.backends.openvino", "OpenVinoBuilder"),
    "onnxruntime": ("diffopt.backends.onnxruntime", "OnnxRuntimeBuilder"),
    "aotinductor": ("diffopt.backends.aotinductor", "AotInductorBuilder"),
    "tensorrt": ("diffopt.backends.tensorrt", "TensorRtBuilder"),
    "torch-tensorrt": ("diffopt.backends.torch_tensorrt", "TorchTensorRtBuilder"),
}
"""Module and class of each builder, by the name that passes and emitted code use."""


def builder(name: str, options: EngineOptions, device: str) -> Builder:
    """Return the builder of that name, ready to work.

    Raises BackendError where there is none, or where it cannot do this here.
    """
    if name not in BUILDERS:
        raise BackendError(f"no backend {name!r}", f"there are {', '.join(BUILDERS)}")
    module, attribute = BUILDERS[name]
    made: Builder = getattr(importlib.import_module(module), attribute)()
    missing = made.available()
    if missing:
        raise BackendError(f"{name}: {missing}")
    can = made.capabilities
    if options.precision not in can.precisions:
        raise BackendError(f"{name} has no precision {options.precision!r}", f"it has {', '.join(can.precisions)}")
    if device.split(":")[0] not in can.devices:
        raise BackendError(f"{name} engines run on {', '.join(can.devices)}, not on {device}")
    if options.dynamic_int8 and not can.dynamic_int8:
        raise BackendError(f"{name} engines cannot multiply in 8 bits here", "quantize with scheme int8-weights")
    return made
