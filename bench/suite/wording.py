"""Say a task in words."""

from __future__ import annotations

import random
from collections.abc import Sequence

from diffopt.bench.suite.families import SAMPLER_TITLES, Family, clips
from diffopt.bench.suite.task import METHODS, Method, Target

OPENINGS = (
    "Write a {what} pipeline with the model {model} in place of {title}",
    "Build a {what} script: {title}, here {model}",
    "I need a complete {what} inference script for {model} (our {title})",
)
USING = ("accelerated by {methods}", "sped up with {methods}", "and apply {methods}")
FASTER = (
    (
        "Make it at least {factor} as fast as that baseline, by any of: {methods}, another sampler or fewer steps, 16-bit "
        "floats, fused projections; lose at most {loss:.0%} of prompt adherence."
    ),
    (
        "Reach a speed-up of {factor} over that baseline and lose no more than {loss:.0%} of prompt adherence. You may use "
        "{methods}, another sampler, fewer steps, 16-bit floats, fused projections."
    ),
)
SOONER = (
    (
        "One image has to take at most {factor} on this machine; lose at most {loss:.0%} of prompt adherence. You may use "
        "{methods}, another sampler, fewer steps, 16-bit floats, fused projections."
    ),
)
CONDITIONS = {"controlnet": "Canny-guided text-to-image", "dit": "class-to-image"}


def worded(
    family: Family,
    level: int,
    sampler: str,
    steps: int,
    methods: Sequence[Method],
    target: Target | None,
    rng: random.Random,
) -> str:
    """Return the task's text."""
    what = CONDITIONS.get(family.key, "text-to-image")
    opening = rng.choice(OPENINGS).format(what=what, model=family.model, title=family.title)
    clipping = " without clipping samples" if clips(family, sampler) else ""
    named = f"{SAMPLER_TITLES[sampler]}{clipping} and " if sampler else ""
    size = "" if family.key == "dit" else f", {family.size}x{family.size} pixels"
    call = f"{named}{steps} steps, guidance {family.guidance:g}{size}"
    if target is not None:
        template = rng.choice(FASTER if target.metric == "speedup" else SOONER)
        allowed = ", ".join(METHODS[method.name] for method in methods) or "caches"
        goal = template.format(factor=_factor(target), methods=allowed, loss=target.quality_loss)
        return f"{opening}. The baseline is {call}. {goal}"
    if not methods:
        return f"{opening}: {call}, no acceleration."
    using = rng.choice(USING).format(methods=_listed([_said(method) for method in methods]))
    return f"{opening}: {call}, {using}."


def _factor(target: Target) -> str:
    return f"{{{target.metric} target: {target.difficulty}}}"


def _said(method: Method) -> str:
    options = method.options
    match method.name:
        case "fast-sampler":
            return f"{SAMPLER_TITLES[str(options['sampler'])]} in {options['steps']} steps"
        case "deepcache":
            return f"DeepCache (interval {options['interval']})"
        case "tome":
            return f"ToMe (ratio {options['ratio']})"
        case "tgate":
            return f"T-Gate (gate step {options['gate_step']})"
        case _:
            return METHODS[method.name]


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
