"""Whether the place of an edit is behind all that the script does to its pipeline, in the order in which it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import libcst as cst

from diffopt.ir.emit_statements import RUNTIME, Statement
from diffopt.ir.errors import DiffoptError
from diffopt.ir.script_adapters import CHANGES, LOADERS
from diffopt.ir.script_choice import Choice
from diffopt.ir.script_conditions import is_dead
from diffopt.ir.script_parameters import callers
from diffopt.ir.script_pipelines import Pipelines
from diffopt.ir.script_placement import Place, is_ours

HARMLESS = ("follow_step_plan", "call_defaults")
"""Functions of ours that an adapter may be loaded behind: they leave the components as they are."""


def check_order(pipelines: Pipelines, choice: Choice, places: Sequence[Place], statements: Sequence[Statement]) -> None:
    """Refuse where the script sets a part of its pipeline again behind the statements that are to be put in.

    Raises:
        DiffoptError: it does, or in a function of which it cannot be told when it runs.
    """
    script = pipelines.script
    for name, node, holder in _set_ups(pipelines, choice):
        if not _conflicts(name, statements):
            continue
        sites = pipelines.of(holder)
        near = [place for place in places if not place.sites or sites.intersection(place.sites)]
        if all(_runs_before(pipelines, node, place, frozenset()) for place in near):
            continue
        what = f"calls `{name}`" if name in LOADERS or name in CHANGES else f"sets the {name} again"
        place = script.where(near[0].unit)
        raise DiffoptError(
            f"the script {what} behind the place of the edit, {place}",
            where=script.where(node),
            hint="do it where the pipeline is built",
        )


def carried(pipelines: Pipelines, choice: Choice) -> cst.CSTNode | None:
    """Return the first statement on the pipeline that an earlier patch has put in."""
    sites, script = set(choice.sites), pipelines.script
    units = sorted((*script.all(cst.Expr), *script.all(cst.Assign)), key=script.start)
    return next(
        (u for u in units if is_ours(pipelines, u) and any(pipelines.of(node) & sites for node in _named(u))), None
    )


def _named(unit: cst.CSTNode) -> Iterator[cst.CSTNode]:
    stack: list[cst.CSTNode] = [unit]
    while stack:
        node = stack.pop()
        if isinstance(node, cst.Name | cst.Attribute | cst.Subscript):
            yield node
        stack.extend(node.children)


def _set_ups(pipelines: Pipelines, choice: Choice) -> Iterator[tuple[str, cst.CSTNode, cst.CSTNode]]:
    """Yield what is set: a component or the method called, where, and the expression that is the pipeline there."""
    sites, script = set(choice.sites), pipelines.script
    for name, assigned in pipelines.values.attribute_targets.items():
        for place, _ in assigned:
            if pipelines.of(place.value) & sites and not is_dead(pipelines.values, place):
                statement = script.enclosing(place, cst.Assign)
                if statement is None or not is_ours(pipelines, statement):
                    yield name, place, place.value
    for name in (*LOADERS, *CHANGES):
        for call in pipelines.values.calls_by_name.get(name, ()):
            if not isinstance(call.func, cst.Attribute) or is_dead(pipelines.values, call):
                continue
            holder = call.func.value
            part = holder.value if isinstance(holder, cst.Attribute) else holder
            found = next((node for node in (holder, part) if pipelines.of(node) & sites), None)
            if found is not None:
                yield name, call, found


def _conflicts(name: str, statements: Sequence[Statement]) -> bool:
    """Say whether what is set is what a statement changes, or was made of."""
    for statement in statements:
        made = {function for module, function in statement.imports if module == RUNTIME}
        if name in LOADERS or name in CHANGES:
            # how strong an adapter is may change at any time, but not inside an engine
            if any("export" in function for function in made) or (
                made.difference(HARMLESS) and not name.startswith("set_")
            ):
                return True
        elif f"{{pipe}}.{name} =" in statement.code or (f'"{name}"' in statement.code and made):
            return True
        elif any(function.endswith("_pipeline") for function in made):
            return name in ("unet", "transformer", "vae", "scheduler") or name.startswith("text_encoder")
    return False


def _home(pipelines: Pipelines, node: cst.CSTNode) -> cst.FunctionDef | cst.Lambda | None:
    found = (a for a in pipelines.script.ancestors(node) if isinstance(a, cst.FunctionDef | cst.Lambda))
    return next(found, None)


def _runs_before(pipelines: Pipelines, node: cst.CSTNode, place: Place, seen: frozenset[cst.CSTNode]) -> bool:
    """Say whether a node has run when the statements of a place run."""
    script = pipelines.script
    home, other = _home(pipelines, node), _home(pipelines, place.unit)
    if home is other and script.part(node) is script.part(place.unit):
        if place.hoist is None:
            return script.start(node) < script.end(place.unit)
        inside = script.start(place.hoist) <= script.start(node) < script.end(place.hoist)
        return inside or script.start(node) < script.start(place.unit)
    if isinstance(home, cst.Lambda):
        return False
    if home is None or home in seen:
        # a file that is imported runs before the one that imports it
        return home is None and script.start(node) < script.start(place.unit)
    found = list(callers(pipelines.values, home))
    called = {call.func for call in found}
    named = [
        name
        for name in script.all(cst.Name)
        if name.value == home.name.value and isinstance(script.parents[name], cst.Arg) and name not in called
    ]
    return bool(found) and not named and all(_runs_before(pipelines, call, place, seen | {home}) for call in found)
