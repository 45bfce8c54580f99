"""Operators that make a new trace from old ones, driven by what the passes declare: no pass is named here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace as with_options

import numpy as np

from diffopt.ir.errors import DiffoptError
from diffopt.passes.base import DiffusionPass, Option, Value, options
from diffopt.search.space import Space, Steps

LONGEST = 8
"""Passes in a trace at most; longer ones are merely slower to say what a shorter one says."""


def insert(steps: Steps, space: Space, rng: np.random.Generator) -> Steps | None:
    """Put one more pass in at a random place: `a,c` --> `a,b,c`."""
    if len(steps) >= LONGEST:
        return None
    at = int(rng.integers(len(steps) + 1))
    step = any_instance(steps[:at], space, rng)
    return None if step is None else (*steps[:at], step, *steps[at:])


def drop(steps: Steps, space: Space, rng: np.random.Generator) -> Steps | None:
    """Take one pass out: `a,b,c` --> `a,c`."""
    if len(steps) < 2:
        return None
    at = int(rng.integers(len(steps)))
    return steps[:at] + steps[at + 1 :]


def swap(steps: Steps, space: Space, rng: np.random.Generator) -> Steps | None:
    """Exchange two passes: `a,b,c` --> `c,b,a`."""
    if len(steps) < 2:
        return None
    order = list(steps)
    left, right = rng.choice(len(steps), size=2, replace=False)
    order[left], order[right] = order[right], order[left]
    return tuple(order)


def perturb(steps: Steps, space: Space, rng: np.random.Generator) -> Steps | None:
    """Change one option of one pass a little: `a{n=10}` --> `a{n=8}`."""
    if not steps:
        return None
    at = int(rng.integers(len(steps)))
    step = _neighbour(steps[at], space.instances(steps[at].name, steps[:at]), rng)
    if step is None or rng.random() < 0.3:
        step = _jitter(steps[at], rng)
    return None if step is None else (*steps[:at], step, *steps[at + 1 :])


def replace(steps: Steps, space: Space, rng: np.random.Generator) -> Steps | None:
    """Put another pass, or the same with quite other options, in a pass's place: `a,b,c` --> `a,d,c`."""
    if not steps:
        return None
    at = int(rng.integers(len(steps)))
    step = any_instance(steps[:at], space, rng)
    return None if step is None or step == steps[at] else (*steps[:at], step, *steps[at + 1 :])


def crossover(left: Steps, right: Steps, space: Space, rng: np.random.Generator) -> Steps | None:
    """Merge two traces, keeping the order within each: `a,b` and `c,b,d` --> `c,a,b,d`.

    A pass that both hold comes from one of them; one that only one holds comes along half of the time.
    """
    shared = {step.name for step in left} & {step.name for step in right}
    from_left = {name for name in sorted(shared) if rng.random() < 0.5}
    mine = [s for s in left if (s.name in from_left if s.name in shared else rng.random() < 0.5)]
    theirs = [s for s in right if (s.name not in from_left if s.name in shared else rng.random() < 0.5)]
    merged: list[DiffusionPass] = []
    while mine or theirs:
        source = mine if mine and (not theirs or rng.random() < len(mine) / (len(mine) + len(theirs))) else theirs
        merged.append(source.pop(0))
    return tuple(merged[:LONGEST]) or None


def fresh(space: Space, rng: np.random.Generator) -> Steps | None:
    """Write a trace from nothing: one to four passes, each worth trying where it stands."""
    steps: Steps = ()
    for _ in range(int(rng.integers(1, 5))):
        step = any_instance(steps, space, rng)
        if step is not None:
            steps = (*steps, step)
    return steps or None


Operator = Callable[[Steps, Space, np.random.Generator], Steps | None]

OPERATORS: tuple[tuple[Operator, float], ...] = (
    (perturb, 0.34),
    (insert, 0.22),
    (replace, 0.12),
    (drop, 0.08),
    (swap, 0.06),
)
"""Operators on one trace with their share; what is left goes to crossover and, a little, to fresh traces."""

FRESH = 0.06


def vary(parents: Sequence[Steps], space: Space, rng: np.random.Generator) -> tuple[Steps | None, str]:
    """Return a new trace, perhaps illegal or old, and the name of the operator that made it; best parents first."""
    draw = float(rng.random())
    if not parents or draw < FRESH:
        return fresh(space, rng), "fresh"
    parent = _tournament(parents, rng)
    for operator, share in OPERATORS:
        draw -= share
        if draw < FRESH:
            return operator(parent, space, rng), operator.__name__
    return crossover(parent, _tournament(parents, rng), space, rng), "crossover"


def any_instance(before: Steps, space: Space, rng: np.random.Generator) -> DiffusionPass | None:
    """Return a random instance of a random pass that has any here: every pass is as likely as another."""
    for name in rng.permutation(len(space.names)):
        found = space.instances(space.names[int(name)], before)
        if found:
            return found[int(rng.integers(len(found)))]
    return None


def _tournament(parents: Sequence[Steps], rng: np.random.Generator) -> Steps:
    return parents[int(rng.integers(len(parents), size=2).min())]


def _neighbour(step: DiffusionPass, known: Steps, rng: np.random.Generator) -> DiffusionPass | None:
    """Return a known instance that differs in one option; of a numeric option the nearest value on either side."""
    near: list[DiffusionPass] = []
    for option in options(type(step)):
        mine = getattr(step, option.name)
        alike = [o for o in known if o != step and with_options(o, **{option.name: mine}) == step]
        if option.choices or option.type in ("bool", "str"):
            near += alike
            continue
        below = [o for o in alike if getattr(o, option.name) < mine]
        above = [o for o in alike if getattr(o, option.name) > mine]
        near += [max(below, key=lambda o, n=option.name: getattr(o, n))] if below else []  # type: ignore[misc]
        near += [min(above, key=lambda o, n=option.name: getattr(o, n))] if above else []  # type: ignore[misc]
    return near[int(rng.integers(len(near)))] if near else None


def _jitter(step: DiffusionPass, rng: np.random.Generator) -> DiffusionPass | None:
    """Return the pass with one option moved by what its type allows; `None` where that is out of its range."""
    declared = options(type(step))
    if not declared:
        return None
    option = declared[int(rng.integers(len(declared)))]
    value = _moved(option, getattr(step, option.name), rng)
    if value is None:
        return None
    try:
        return with_options(step, **{option.name: value})
    except DiffoptError:
        return None


def _moved(option: Option, value: Value, rng: np.random.Generator) -> Value | None:
    if option.choices:
        others = [choice for choice in option.choices if choice != value]
        return others[int(rng.integers(len(others)))] if others else None
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        reach = max(1, abs(value) // 4)
        return value + int(rng.integers(1, reach + 1)) * (1 if rng.random() < 0.5 else -1)
    if isinstance(value, float):
        return round(value * float(rng.uniform(0.75, 1.33)), 3)
    return None
