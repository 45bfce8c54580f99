"""The contract of a pass, and the registry that finds every one."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, final, get_args, get_origin, get_type_hints

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

import diffopt.passes
from diffopt.ir.dialect import denoisers_of
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import context
from diffopt.passes import rules
from diffopt.passes.refusal import Refusal

__all__ = [
    "DiffusionPass",
    "Example",
    "Family",
    "Option",
    "Refusal",
    "Tier",
    "Value",
    "missing_package",
    "options",
    "registry",
    "unlike_torch",
]

Value = int | float | bool | str


class Tier(Enum):
    """The strongest promise about the images that a pass can keep."""

    EXACT = "exact"
    NEAR = "near"
    TRADED = "traded"


class Family(Enum):
    """What a pass works on."""

    STEPS = "steps"
    GUIDANCE = "guidance"
    CACHING = "caching"
    LOSSLESS = "lossless"
    KERNELS = "kernels"
    QUANTIZATION = "quantization"
    ATTENTION = "attention"
    TOKENS = "tokens"
    VAE = "vae"
    MEMORY = "memory"
    STRUCTURE = "structure"
    COMPILATION = "compilation"
    DISTRIBUTED = "distributed"


@dataclass(frozen=True)
class Example:
    """What a pass does to the standard 50-step module: a trace, and the line it must bring about or the refusal.

    model: `unet` (the standard module), `transformer` (PixArt), `flux` and `adapted` (a Stable Diffusion with a LoRA and a
    safety checker), all known by their class alone, or `flow`, a Stable Diffusion 3 of four blocks.
    """

    trace: str
    expect: str = ""
    refusal: str = ""
    model: str = "unet"


@dataclass(frozen=True)
class Option:
    """One option of a pass, as its field declares it."""

    name: str
    type: str
    default: Value
    choices: tuple[Value, ...] = ()


@dataclass(frozen=True)
class DiffusionPass(ModulePass):
    """A rewrite of a diffusion pipeline: a frozen dataclass whose fields are its options.

    Asking (`space`, `refusal`) is pure; only `apply` changes the module. A subclass checks the ranges of its options
    in `check_options`, by `self.require`. How it goes with others is declared, and checked on what stands in the
    module; `refuse` says what a table cannot.

    after, before: passes (or `family:quantization`) behind or ahead of whose transforms of a component this one's stand.
    requires: passes whose work must be there already.
    excludes: passes that cannot be on one pipeline with this one, each with a sentence why.
    one_of: the group of which a component holds at most one.
    architectures: `unet`, `transformer`; empty for any.
    packages: optional packages, each with the extra of ours that brings it.
    devices: the kinds of device it is for (`cuda`); empty for any. A search for another leaves it out.
    on_request: only a user asks for it, by name; its space is empty.
    """

    name: ClassVar[str]
    family: ClassVar[Family]
    tier: ClassVar[Tier]
    examples: ClassVar[tuple[Example, ...]]
    version: ClassVar[int] = 1
    after: ClassVar[tuple[str, ...]] = ()
    before: ClassVar[tuple[str, ...]] = ()
    requires: ClassVar[tuple[str, ...]] = ()
    excludes: ClassVar[Mapping[str, str]] = MappingProxyType({})
    one_of: ClassVar[str] = ""
    architectures: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[Mapping[str, str]] = MappingProxyType({})
    devices: ClassVar[tuple[str, ...]] = ()
    on_request: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for option in options(type(self)):
            value = getattr(self, option.name)
            if option.type == "float" and type(value) is int and abs(value) < 2**53:
                object.__setattr__(self, option.name, float(value))
            elif option.choices:
                self.require(value in option.choices, option.name, f"one of {', '.join(map(str, option.choices))}")
            else:
                self.require(type(value).__name__ == option.type, option.name, f"of type {option.type}")
        self.check_options()

    def check_options(self) -> None:
        """Check ranges; nothing to check by default."""

    def require(self, holds: bool, option: str, what: str) -> None:
        """Raise a `DiffoptError` naming pass, option and value unless `holds`."""
        if not holds:
            raise DiffoptError(f"option {option}={getattr(self, option)} must be {what}", where=self.name)

    @classmethod
    @abstractmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        """Yield the instances worth trying on this module; pure."""

    @final
    def refusal(self, module: ModuleOp) -> Refusal | None:
        """Return why this instance cannot be applied to this module, or `None`; pure.

        Asks what is declared, then `refuse`, then tries the pass on a copy where an order or a group is at stake.
        """
        known = {**registry(), self.name: type(self)}
        found = rules.unmet(type(self), module, known) or self.refuse(module)
        if found is not None or not rules.may_clash(type(self), module, known):
            return found
        tried = module.clone()
        self.apply(context(), tried)
        return next(rules.breaches(tried, known), None)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        """Return what stands against this instance that no declaration says; nothing by default. Pure."""
        return None

    @abstractmethod
    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite the module."""

    @final
    @classmethod
    def schedule_space(cls, ctx: Context, module_op: ModuleOp) -> tuple[Self, ...]:
        """Return the instances of `space` that are not refused."""
        return tuple(instance for instance in cls.space(module_op) if instance.refusal(module_op) is None)


@cache
def options(pass_type: type[DiffusionPass]) -> tuple[Option, ...]:
    """Return the options of a pass, read off its fields."""
    hints: Mapping[str, Any] = get_type_hints(pass_type)
    defaults: Mapping[str, Any] = {field.name: field.default for field in fields(pass_type)}
    found = []
    for field in fields(pass_type):
        hint = hints[field.name]
        choices = get_args(hint) if get_origin(hint) is Literal else ()
        kind = type(choices[0]).__name__ if choices else hint.__name__
        found.append(Option(field.name, kind, defaults[field.name], choices))
    return tuple(found)


@cache
def registry() -> Mapping[str, type[DiffusionPass]]:
    """Find every pass: those in this package and those of installed packages (entry point `diffopt.passes`).

    Raises:
        DiffoptError: two passes share a name; both modules are named.
    """
    modules = [
        importlib.import_module(info.name)
        for info in pkgutil.walk_packages(diffopt.passes.__path__, "diffopt.passes.")
        if not info.ispkg
    ]
    modules += [entry.load() for entry in importlib.metadata.entry_points(group="diffopt.passes")]
    found: dict[str, type[DiffusionPass]] = {}
    for module in modules:
        for value in vars(module).values():
            if not (isinstance(value, type) and issubclass(value, DiffusionPass) and "name" in vars(value)):
                continue
            other = found.setdefault(value.name, value)
            if other is not value:
                raise DiffoptError(
                    f"two passes are named {value.name}", where=f"{other.__module__}, {value.__module__}"
                )
    order = list(Family)
    return MappingProxyType(dict(sorted(found.items(), key=lambda item: (order.index(item[1].family), item[0]))))


def missing_package(package: str, extra: str) -> Refusal | None:
    """Refuse when a package is not installed, naming the extra that brings it."""
    return None if importlib.util.find_spec(package) is not None else rules.missing(package, extra)


def unlike_torch(module: ModuleOp) -> Refusal | None:
    """Refuse a pipeline whose denoiser is no module of torch, or already carries what a transform would add."""
    for denoiser in denoisers_of(module):
        name, present = f"@{denoiser.sym_name.data}", denoiser.values.get("present")
        if "Onnx" in denoiser.class_name.data:
            return Refusal(f"{denoiser.class_name.data} is an engine already", name, "wrong-kind")
        done = (
            [str(item.get("name")) for item in present if isinstance(item, dict)] if isinstance(present, list) else []
        )
        for word, said in (("compile", "compiles it"), ("quant", "quantizes it")):
            if any(word in each for each in done):
                return Refusal(f"the source {said} already", name, "present")
    return None
