"""Run an answer as it is: one measured call is one run of its `generate`; steps and draws of noise are counted."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

FOOTER = """

# -- added by DiffBench: a call of the pipeline is one run of generate() --
from diffopt.bench.suite.harness import as_pipeline

load = as_pipeline(load, generate)
"""
STEPS = "scheduler-steps"
"""The witness that tells how many steps the calls so far have taken."""

DRAWS = "given-noise"
"""The witness that tells how many calls have drawn from the generator they were given, as it was seeded."""


def measured_text(code: str) -> str:
    """Return the program that is measured for an answer: its text, unchanged, and the harness below it."""
    return code + FOOTER


def as_pipeline(load: Callable[..., Any], generate: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `load` whose pipeline, called with a prompt and a generator, runs the answer's `generate`."""

    @functools.wraps(load)
    def loaded(model: str, device: str = "cpu", engines: object = "engines") -> Any:
        taken = inspect.signature(load).parameters
        given = {"model": model, "device": device, "engines": engines}
        pipe = load(**{name: value for name, value in given.items() if name in taken})
        drawn = [0]
        _watch(pipe, drawn)
        pipe.__class__ = _calling(type(pipe), generate, drawn)
        return pipe

    return loaded


def _calling(base: type, generate: Callable[..., Any], drawn: list[int]) -> type:
    inside = [False]
    wants_pictures = "image" in inspect.signature(generate).parameters

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if inside[0]:
            return base.__call__(self, *args, **kwargs)
        prompt, given = args[0], kwargs["generator"]
        watched = given if isinstance(given, list) else [given]
        before = [(generator.initial_seed(), generator.get_state()) for generator in watched]
        inside[0] = True
        try:
            images = generate(self, prompt, given, *[_pictures(prompt)] * wants_pictures)
        finally:
            inside[0] = False
        drawn[0] += all(
            generator.initial_seed() == seed and not generator.get_state().equal(state)
            for generator, (seed, state) in zip(watched, before, strict=True)
        )
        return SimpleNamespace(images=np.asarray(images))

    own = {"__call__": call, "takes_prompts": True, "__module__": base.__module__, "__doc__": base.__doc__}
    # The name stays: what a pipeline is called decides, in diffusers, what may be done with it.
    return type(base.__name__, (base,), own)


def _pictures(prompts: str | list[str]) -> Any:
    """Return a picture of what each prompt says, which a ControlNet's answer finds the edges of."""
    from PIL import Image

    from diffopt.bench.models.shapes_edges import SHAPES_EDGES

    drawn = SHAPES_EDGES.pictures([prompts] if isinstance(prompts, str) else prompts)
    return [Image.fromarray(picture) for picture in drawn]


def _watch(pipe: Any, drawn: list[int]) -> None:
    from diffopt.backends.base import Witness
    from diffopt.backends.runtime.attachment import attachment

    taken = [0]
    step = pipe.scheduler.step

    @functools.wraps(step)
    def counted(*args: Any, **kwargs: Any) -> Any:
        taken[0] += 1
        return step(*args, **kwargs)

    pipe.scheduler.step = counted
    attachment(pipe).witnesses += [
        lambda: Witness(STEPS, taken[0], f"{taken[0]} steps of the scheduler"),
        lambda: Witness(DRAWS, drawn[0], f"{drawn[0]} calls drew from the generator they were given"),
    ]
