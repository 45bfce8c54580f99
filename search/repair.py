"""Make a trace legal by the smallest change that does it, or give it up."""

from __future__ import annotations

import numpy as np

from diffopt.search.space import Legal, Refused, Space, Steps

MOST_CHANGES = 6


def repair(steps: Steps, space: Space, rng: np.random.Generator) -> Steps | None:
    """Return a legal, non-empty trace near this one, or `None`.

    While a step is refused: move it to where it is accepted, else take an instance of it that is worth trying at its
    place, else drop it or the earlier step it conflicts with. At most six changes; each moves the first refusal later
    or makes the trace shorter.
    """
    for _ in range(MOST_CHANGES):
        verdict = space.check(steps)
        if isinstance(verdict, Legal):
            return steps or None
        mended = _moved(steps, verdict, space) or _other_options(steps, verdict, space, rng)
        steps = mended or _dropped(steps, verdict, space, rng)
    return steps if steps and isinstance(space.check(steps), Legal) else None


def _moved(steps: Steps, verdict: Refused, space: Space) -> Steps | None:
    """Move the refused step forward until it, and all that stood before it, are accepted."""
    step, rest = steps[verdict.at], steps[: verdict.at]
    for at in reversed(range(verdict.at)):
        tried = (*rest[:at], step, *rest[at:])
        if isinstance(space.check(tried), Legal):
            return (*tried, *steps[verdict.at + 1 :])
    return None


def _other_options(steps: Steps, verdict: Refused, space: Space, rng: np.random.Generator) -> Steps | None:
    before = steps[: verdict.at]
    known = space.instances(steps[verdict.at].name, before)
    for index in rng.permutation(len(known))[:4]:
        tried = (*before, known[int(index)])
        if isinstance(space.check(tried), Legal):
            return (*tried, *steps[verdict.at + 1 :])
    return None


def _dropped(steps: Steps, verdict: Refused, space: Space, rng: np.random.Generator) -> Steps:
    """Drop the refused step, or one earlier step without which it is accepted; a coin decides."""
    at = verdict.at
    culprits = [i for i in range(at) if isinstance(space.check(steps[:i] + steps[i + 1 : at + 1]), Legal)]
    if culprits and rng.random() < 0.5:
        at = culprits[int(rng.integers(len(culprits)))]
    return steps[:at] + steps[at + 1 :]
