"""Numbers read from a module: what a program will do at run time, whatever passes brought it about."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from diffopt.ir.description import JSON
    from diffopt.passes.base import DiffusionPass


WORK = "log calls"
"""The fact that latency is expected to follow: the logarithm of how many whole denoiser calls a program makes.

A guided step makes two, or one of twice the size; a shallow one counts as `SHALLOW` of a whole.
"""

SHALLOW = 0.4


def facts(module: ModuleOp) -> dict[str, float]:
    """Return named numbers of a module: loop lengths, denoiser calls, operations, transforms and their arguments.

    Nothing here knows a transform, a scheduler or a pass by name: strings become indicators (``name=value``), numbers
    stand for themselves, so a new one is seen without a change here. Configurations of components, which are the same
    for all programs of a module, are left out.
    """
    from diffopt.ir.dialect import components, loops

    found: dict[str, float] = {}
    steps = full = shallow = guided = 0
    for loop in loops(module):
        start, stop = loop.bounds
        steps += stop - start
        guided += stop - start if loop.guide else 0
        for predict in loop.predicts:
            whole = stop - start if predict.full_steps is None else sum(start <= i < stop for i in predict.full_steps)
            full += whole
            shallow += stop - start - whole
    found["steps"] = float(steps)
    found[WORK] = math.log(max(full + SHALLOW * shallow, 1.0))
    for name, count in (("steps", steps), ("full", full), ("shallow", shallow), ("guided", guided)):
        found[f"log {name}"] = math.log1p(count)
    # Error of a solver falls with a power of its steps; so does that of guiding or calling less.
    found["1/steps"], found["1/full"] = 1 / max(steps, 1), 1 / max(full, 1)
    found["guided share"], found["full share"] = guided / max(steps, 1), full / max(full + shallow, 1)
    for op, count in Counter(op.name for op in module.walk()).items():
        found[f"op {op}"] = float(count)
    for name, component in components(module).items():
        values = {k: v for k, v in component.values.items() if k not in ("config", "origin", "steps")}
        found[f"@{name} {component.class_name.data}"] = 1.0
        _read(values, f"@{name}", found)
        for transform in component.transforms:
            place = f"@{name} {transform.transform.data}"
            found[place] = 1.0
            _read(transform.arguments, place, found)
    return found


def trace_facts(steps: tuple[DiffusionPass, ...]) -> dict[str, float]:
    """Return named numbers of a trace: which passes, with which options, and which stands before which."""
    found: dict[str, float] = {}
    for at, step in enumerate(steps):
        found.update(_step_facts(step))
        for later in steps[at + 1 :]:
            found[f"{step.name} < {later.name}"] = 1.0
    return found


@lru_cache(maxsize=4096)
def _step_facts(step: DiffusionPass) -> Mapping[str, float]:
    from diffopt.passes.base import options

    found = {step.name: 1.0}
    _read({option.name: getattr(step, option.name) for option in options(type(step))}, step.name, found)
    return found


def _read(values: Mapping[str, JSON], place: str, found: dict[str, float]) -> None:
    for name, value in values.items():
        if isinstance(value, bool | str) or value is None:
            found[f"{place}.{name}={value}"] = 1.0
        elif isinstance(value, int | float):
            found[f"{place}.{name}"] = float(value)
            if value > 0:
                found[f"log {place}.{name}"] = math.log(value)
        elif isinstance(value, dict):
            _read(value, f"{place}.{name}", found)
