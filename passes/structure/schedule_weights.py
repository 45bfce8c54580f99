"""Read the constants of a schedule off the scheduler itself: its steps are linear, so unit vectors show them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import JSON
from diffopt.ir.dialect import ComponentOp, scheduler_of, steps_of
from diffopt.ir.unroll import REACH

Schedule = tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]
"""Timesteps, and of each step the weights of latent and prediction, then of those a step earlier, and so on."""

LINEAR = (
    "DDIMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
)
"""Schedulers whose steps draw no noise and ask the denoiser once; whether a step is linear is seen, not assumed."""

NEGLIGIBLE, DIGITS = 1e-7, 9


def why_not(module: ModuleOp) -> str:
    """Return why a module's schedule has no constants, as far as its configuration tells; empty where nothing does.

    Asked often, so nothing is imported for it.
    """
    scheduler = scheduler_of(module)
    kind = scheduler.class_name.data.rpartition(".")[2]
    if kind == "UniPCMultistepScheduler":
        return f"the steps of {kind} reach back further than {REACH} steps, by what its corrector keeps"
    if kind not in LINEAR:
        return f"the steps of {kind} are not known to be linear and without noise"
    return _unfit(kind, _config(scheduler))


def schedule_of(module: ModuleOp) -> Schedule | str:
    """Return the constants of a module's schedule, or why it has none, seen by asking the scheduler."""
    if why := why_not(module):
        return why
    scheduler = scheduler_of(module)
    kind, config = scheduler.class_name.data.rpartition(".")[2], _config(scheduler)
    chosen = [t.arguments["timesteps"] for t in scheduler.transforms if t.transform.data == "fit_timesteps"]
    return _probe(kind, json.dumps(config, sort_keys=True), steps_of(module), json.dumps(chosen[0]) if chosen else "")


def _config(scheduler: ComponentOp) -> dict[str, JSON]:
    """Return the configuration that the emitted code gives the scheduler."""
    config = dict(scheduler.config)
    for key in ("swapped", "overrides"):
        given = scheduler.values.get(key)
        config |= given if isinstance(given, dict) else {}
    return config


def _unfit(kind: str, config: Mapping[str, JSON]) -> str:
    """Return what of a configuration keeps steps from being constants; empty where nothing does."""
    if config.get("use_dynamic_shifting"):
        return "the schedule moves with the size of the image"
    if str(config.get("algorithm_type", "")).startswith("sde"):
        return "the solver draws noise in its steps"
    for key, what in (
        ("stochastic_sampling", "the solver draws noise in its steps"),
        ("thresholding", "the solver looks at how large the latent is"),
        ("clip_sample", "the solver clips the latent"),
    ):
        # DDIM clips unless it is told not to.
        if config.get(key, key == "clip_sample" and kind == "DDIMScheduler"):
            return what
    return ""


@lru_cache(maxsize=64)
def _probe(kind: str, config: str, steps: int, timesteps: str) -> Schedule | str:
    """Step unit vectors through the scheduler; `config` and `timesteps` are JSON."""
    import diffusers
    import torch

    def fresh() -> Any:
        made = getattr(diffusers, kind).from_config(json.loads(config))
        if not timesteps:
            made.set_timesteps(steps)
        elif "FlowMatch" in kind or made.config.get("use_flow_sigmas"):
            total = made.config.get("num_train_timesteps", 1000)
            made.set_timesteps(sigmas=[step / total for step in json.loads(timesteps)])
        else:
            made.set_timesteps(timesteps=json.loads(timesteps))
        made.is_scale_input_called = True  # or Euler warns; the samples are as they are after that
        return made

    def run(samples: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        scheduler = fresh()
        rows = [
            scheduler.step(output.view(1, 1, 1, -1), timestep, sample.view(1, 1, 1, -1), return_dict=False)[0]
            for output, timestep, sample in zip(outputs, scheduler.timesteps, samples, strict=True)
        ]
        return torch.stack(rows).double().flatten(1)

    times = [round(float(timestep), DIGITS) for timestep in fresh().timesteps]
    if len(times) != steps:
        return f"the scheduler takes {len(times)} timesteps for {steps} steps"
    units = torch.eye(2 * steps)
    found = run(units[:steps], units[steps:])
    generator = torch.Generator().manual_seed(0)
    samples, outputs = torch.randn(2, steps, 16, generator=generator)
    expected = found @ torch.cat([samples, outputs]).double()
    error = (run(samples, outputs) - expected).norm() / expected.norm()
    if not error < 1e-5:
        return f"the steps of {kind} are not linear as it is configured"
    weights = []
    for index, row in enumerate(found):
        pairs = [(float(row[index - back]), float(row[steps + index - back])) for back in range(index + 1)]
        floor = NEGLIGIBLE * max(abs(number) for pair in pairs for number in pair)
        reach = max(back + 1 for back, pair in enumerate(pairs) if max(map(abs, pair)) > floor)
        if reach > REACH:
            return f"the steps of {kind} reach back further than {REACH} steps"
        weights.append(tuple(_short(number) for pair in pairs[:reach] for number in pair))
    return tuple(times), tuple(weights)


def _short(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
