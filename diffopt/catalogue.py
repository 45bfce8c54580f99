"""The catalogue of passes as text and JSON, derived from their declarations."""

from __future__ import annotations

import inspect

from diffopt.ir.description import JSON
from diffopt.ir.errors import DiffoptError
from diffopt.passes.base import DiffusionPass, Option, options, registry
from diffopt.passes.pipeline import nearest


def catalogue_lines() -> list[str]:
    """Return one line a pass: name, family, tier, what it does."""
    found = registry()
    width = max(map(len, found))
    return [f"{name:<{width}}  {t.family.value:<12}  {t.tier.value:<6}  {_summary(t)}" for name, t in found.items()]


def pass_lines(name: str) -> list[str]:
    """Return all there is to know about a pass.

    Raises:
        DiffoptError: there is no such pass.
    """
    found = _lookup(name)
    lines = [f"{name}  (family {found.family.value}, tier {found.tier.value})", "", inspect.getdoc(found) or "", ""]
    lines.append("Options:" if options(found) else "No options.")
    lines += [f"  {_option_text(found, option)}" for option in options(found)]
    lines += ["", "Examples:"]
    for example in found.examples:
        outcome = f"refused: {example.refusal}" if example.refusal else f"gives: {example.expect}"
        lines += [f"  {example.trace}", f"    {outcome}"]
    return lines


def catalogue_json(name: str | None = None) -> JSON:
    """Return the catalogue, or one pass of it, as JSON.

    Raises:
        DiffoptError: there is no such pass.
    """
    if name is not None:
        return _pass_json(_lookup(name))
    return [_pass_json(found) for found in registry().values()]


def _pass_json(found: type[DiffusionPass]) -> JSON:
    return {
        "name": found.name,
        "family": found.family.value,
        "tier": found.tier.value,
        "summary": _summary(found),
        "options": [
            {
                "name": o.name,
                "type": o.type,
                "default": o.default,
                "choices": list(o.choices),
                "must_be": must_be(found, o),
            }
            for o in options(found)
        ],
    }


def _lookup(name: str) -> type[DiffusionPass]:
    found = registry().get(name)
    if found is None:
        raise DiffoptError(f"unknown pass {name!r}", hint=nearest(name, tuple(registry())))
    return found


def must_be(found: type[DiffusionPass], option: Option) -> str:
    """Return what a number given for an option must be, as the pass itself says to one that is far too large."""
    if option.choices or option.type not in ("int", "float"):
        return ""
    try:
        found(**{option.name: 10**9})
    except DiffoptError as error:
        return str(error).partition(" must be ")[2]
    return ""


def _option_text(found: type[DiffusionPass], option: Option) -> str:
    kind = " | ".join(map(str, option.choices)) if option.choices else option.type
    limits = must_be(found, option)
    return f"{option.name}: {kind} = {option.default}{limits and f' ({limits})'}"


def _summary(found: type[DiffusionPass]) -> str:
    return (inspect.getdoc(found) or "").split("\n")[0]
