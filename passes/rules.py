"""The rules of composition that passes declare, checked on the IR, where each work bears its pass's name (`origin`).

A rule holds for both of its passes, whichever of the two declares it and whichever is asked first.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from typing import Protocol

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation

from diffopt.ir.dialect import ComponentOp, DenoiseOp, TransformOp, components, denoiser_of
from diffopt.passes.refusal import Refusal

ARCHITECTURES = ("unet", "transformer")
FAMILY = "family:"
"""An entry of `after` or `before` that starts so means every pass of a family."""


class Declared(Protocol):
    """What a pass declares of others; see `DiffusionPass`."""

    @property
    def name(self) -> str: ...
    @property
    def after(self) -> tuple[str, ...]: ...
    @property
    def before(self) -> tuple[str, ...]: ...
    @property
    def requires(self) -> tuple[str, ...]: ...
    @property
    def excludes(self) -> Mapping[str, str]: ...
    @property
    def one_of(self) -> str: ...
    @property
    def architectures(self) -> tuple[str, ...]: ...
    @property
    def packages(self) -> Mapping[str, str]: ...
    @property
    def devices(self) -> tuple[str, ...]: ...
    @property
    def family(self) -> Enum: ...


@dataclass(frozen=True)
class Work:
    """What one pass did to one component. `place` tells the order of a component's transforms; -1 for structure."""

    origin: str
    component: str
    place: int


def works(module: ModuleOp) -> tuple[Work, ...]:
    """Return what passes did to a module so far, each pass once for each component and transform."""
    found: dict[Work, None] = {}
    for op in module.walk():
        attribute = op.attributes.get("origin")
        if isinstance(attribute, StringAttr):
            for origin in filter(None, attribute.data.split(", ")):
                for component, place in _places(op):
                    found[Work(origin, component, place)] = None
    return tuple(found)


def _places(op: Operation) -> Iterator[tuple[str, int]]:
    """Yield the components an operation works on, with its place among the component's transforms."""
    parent = op.parent_op()
    if isinstance(op, TransformOp) and isinstance(parent, ComponentOp):
        yield parent.sym_name.data, parent.transforms.index(op)
        return
    if isinstance(op, ComponentOp):
        yield op.sym_name.data, -1
        return
    symbols = [op.properties.get("component")]
    if isinstance(op, DenoiseOp):
        symbols += [predict.component for predict in op.predicts]
    names = [getattr(getattr(symbol, "root_reference", None), "data", "") for symbol in symbols]
    for name in dict.fromkeys(filter(None, names)) or ("pipeline",):
        yield name, -1


def unmet(asked: Declared, module: ModuleOp, known: Mapping[str, Declared]) -> Refusal | None:
    """Return why a pass cannot come to a module, for all that its own work has no part in."""
    present = dict.fromkeys(work.origin for work in works(module))
    for package, extra in asked.packages.items():
        if importlib.util.find_spec(package) is None:
            return missing(package, extra)
    if asked.architectures and architecture(module) not in asked.architectures:
        denoiser = denoiser_of(module)
        return Refusal(
            f"is for {' and '.join(f'{kind}s' for kind in asked.architectures)}, and the denoiser is "
            f"{denoiser.class_name.data}",
            f"@{denoiser.sym_name.data}",
            "architecture",
        )
    for name in asked.requires:
        if name not in present:
            return Refusal(f"needs {name} ahead of it, which is not there", rule="requires")
    for work in works(module):
        if work.place < 0 and work.origin in known and _among(asked, known[work.origin].after):
            late = f"must come before {work.origin}, which stands there already"
            return Refusal(late, f"@{work.component}", "order")
    for name in present:
        reason = asked.excludes.get(name) or (known[name].excludes.get(asked.name) if name in known else "")
        if reason:
            return Refusal(f"not with {name}: {reason}", rule="excludes")
    return None


def unfit(asked: Declared, device: str) -> Refusal | None:
    """Return why a pass can do nothing on a device such as `cuda:0`."""
    if not asked.devices or device.split(":")[0] in asked.devices:
        return None
    return Refusal(f"is for {' and '.join(asked.devices)} devices, and the target is {device}", asked.name, "device")


def missing(package: str, extra: str) -> Refusal:
    """Return the refusal for a package that is not installed, naming the extra that brings it."""
    return Refusal(f"needs {package}, which is not installed: pip install 'diffopt[{extra}]'", rule="missing-package")


def architecture(module: ModuleOp) -> str:
    """Return the kind of the denoiser: `unet`, `transformer`, or its name where it is neither."""
    denoiser = denoiser_of(module)
    for kind in ARCHITECTURES:
        if kind in denoiser.class_name.data.lower():
            return kind
    return denoiser.sym_name.data


def may_clash(asked: Declared, module: ModuleOp, known: Mapping[str, Declared]) -> bool:
    """Tell whether a rule between the pass and one that worked on the module depends on what the pass will do."""
    others = {work.origin: known[work.origin] for work in works(module) if work.origin in known}
    return any(
        names(asked, other) or names(other, asked) or (bool(asked.one_of) and asked.one_of == other.one_of)
        for other in others.values()
    )


def names(one: Declared, other: Declared) -> bool:
    """Tell whether one pass declares an order between itself and another."""
    return _among(other, one.after) or _among(other, one.before)


def breaches(module: ModuleOp, known: Mapping[str, Declared]) -> Iterator[Refusal]:
    """Yield each rule of order and of groups that a module breaks."""
    by_component: dict[str, list[Work]] = {}
    for work in works(module):
        if work.origin in known:
            by_component.setdefault(work.component, []).append(work)
    for component, found in by_component.items():
        if component in components(module):
            yield from _group_breaches(component, found, known)
            yield from _order_breaches(component, [work for work in found if work.place >= 0], known)


def _group_breaches(component: str, found: Iterable[Work], known: Mapping[str, Declared]) -> Iterator[Refusal]:
    for one, other in combinations(found, 2):
        group = known[one.origin].one_of
        again = one.origin == other.origin and -1 in (one.place, other.place)
        if group and group == known[other.origin].one_of and not again:
            both = f"{one.origin} twice" if one.origin == other.origin else f"both {one.origin} and {other.origin}"
            yield Refusal(f"cannot have {both}: a component holds at most one {group}", f"@{component}", "one-of")


def _order_breaches(component: str, found: Iterable[Work], known: Mapping[str, Declared]) -> Iterator[Refusal]:
    for first, second in combinations(sorted(found, key=lambda work: work.place), 2):
        ahead, behind = known[first.origin], known[second.origin]
        if first.origin != second.origin and (_among(behind, ahead.after) or _among(ahead, behind.before)):
            reason = f"{second.origin} must come before {first.origin}, which stands there already"
            yield Refusal(reason, f"@{component}", "order")


def _among(declared: Declared, entries: tuple[str, ...]) -> bool:
    return declared.name in entries or f"{FAMILY}{declared.family.value}" in entries


@dataclass(frozen=True)
class Row:
    """One rule as documentation shows it."""

    rule: str
    about: str
    reason: str = ""


def table(declared: Declared) -> tuple[Row, ...]:
    """Return all that a pass declares of others, of pipelines and of packages."""
    rows = [Row("after", name) for name in declared.after]
    rows += [Row("before", name) for name in declared.before]
    rows += [Row("requires", name) for name in declared.requires]
    rows += [Row("excludes", name, reason) for name, reason in declared.excludes.items()]
    rows += [Row("at most one", declared.one_of)] if declared.one_of else []
    rows += [Row("only for", f"{kind}s") for kind in declared.architectures]
    rows += [Row("only on", f"{device} devices") for device in declared.devices]
    return (*rows, *(Row("package", package, extra) for package, extra in declared.packages.items()))
