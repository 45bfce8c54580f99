"""Measure on a live pipeline what static schedules are made from: one traced run each, and no search over runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch

from diffopt.backends.base import BackendError, Tensors
from diffopt.backends.runtime.block_cache import blocks_of
from diffopt.backends.runtime.denoiser_call import read_call
from diffopt.backends.runtime.replaced import replaced
from diffopt.backends.runtime.step_plan import two_leaves

Run = Callable[[], object]


def measure_drift(
    pipe: Any, run: Run, component: str, *, branch: int = 0, blocks: tuple[int, int] | None = None
) -> list[float]:
    """Return how far the features that a cache would keep move on each step but the first, relative to their size.

    run: makes one request of the pipeline, all of whose steps are traced. The pipeline is not to be used afterwards.
    Raises BackendError if its denoiser has no such features.
    """
    denoiser = getattr(pipe, component)
    leaves, _ = two_leaves(component, denoiser, branch, blocks, cross_attention=False)
    original, seen = denoiser.forward, list[Tensors]()

    def forward(*args: Any, **kwargs: Any) -> Any:
        read = read_call(original, args, kwargs)
        if isinstance(read, str):
            raise BackendError(f"the drift of calls with {read} is not measured")
        leaves["full"].take(read[0])
        out, *features = leaves["full"](*read[1])
        seen.append(tuple(features))
        return (out,)

    with replaced(denoiser, forward=forward), torch.no_grad():
        run()
    return [_distance(before, after) for before, after in pairwise(seen)]


def measure_ratios(pipe: Any, run: Run, component: str) -> list[float]:
    """Return how much larger what all blocks of a transformer add is on each step than on the step before; 1 on the first.

    The mean over tokens, as MagCache (arXiv 2506.09045) takes it, and over the calls of one step.
    run: makes one request of the pipeline.
    Raises BackendError if its denoiser has no such blocks.
    """
    blocks, layout = blocks_of(getattr(pipe, component))
    steps: list[list[torch.Tensor]] = [[]]
    entered: list[torch.Tensor] = []
    original = pipe.scheduler.step

    def enter(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered[:] = [kwargs[layout.hidden_name] if layout.hidden_name in kwargs else args[0]]

    def leave(_: Any, args: Any, result: Any) -> None:
        hidden, _ = layout.take(result)
        steps[-1].append((hidden - entered[0]).float().norm(dim=-1))

    def step(*args: Any, **kwargs: Any) -> Any:
        steps.append([])
        return original(*args, **kwargs)

    hooks = [blocks[0].register_forward_pre_hook(enter, with_kwargs=True), blocks[-1].register_forward_hook(leave)]
    try:
        with replaced(pipe.scheduler, step=step), torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    sizes = [torch.stack(calls) for calls in steps if calls]
    return [1.0, *(float((after / (before + 1e-8)).mean()) for before, after in pairwise(sizes))]


def best_timesteps(pipe: Any, run: Run, count: int) -> list[int]:
    """Return `count` timesteps by which Euler steps follow the traced trajectory with the least error (arXiv 2405.11326).

    run: makes one request of many steps. For a flow, timesteps are thousandths before the schedule is shifted.
    Raises BackendError if the run has fewer steps, or the scheduler's schedule is not known.
    """
    trace: list[tuple[float, torch.Tensor, torch.Tensor]] = []
    original = pipe.scheduler.step

    def step(output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        trace.append((float(timestep), sample.detach().float(), output.detach().float()))
        return original(output, timestep, sample, *args, **kwargs)

    with replaced(pipe.scheduler, step=step), torch.no_grad():
        run()
    if len(trace) < count:
        raise BackendError(f"the traced run has {len(trace)} steps, fewer than {count}")
    nodes = [_node(pipe.scheduler, *entry) for entry in trace]
    end = (0.0, nodes[-1][1] - nodes[-1][0] * nodes[-1][2])
    costs = _costs(nodes, end, flow=_is_flow(pipe.scheduler))
    return [own_timestep(pipe.scheduler, trace[index][0]) for index in least_path(costs, count)]


def least_path(costs: Sequence[Sequence[float]], count: int) -> list[int]:
    """Return the `count` nodes, from node 0 on, of the path to the last node whose edges cost least together."""
    nodes = len(costs)
    best = [[float("inf")] * nodes for _ in range(count + 1)]
    came = [[0] * nodes for _ in range(count + 1)]
    best[0][0] = 0.0
    for edges in range(1, count + 1):
        for after in range(1, nodes):
            for before in range(after):
                cost = best[edges - 1][before] + costs[before][after]
                if cost < best[edges][after]:
                    best[edges][after], came[edges][after] = cost, before
    path, node = [], nodes - 1
    for edges in range(count, 0, -1):
        node = came[edges][node]
        path.append(node)
    return path[::-1]


def _is_flow(scheduler: Any) -> bool:
    return "FlowMatch" in type(scheduler).__name__ or bool(scheduler.config.get("use_flow_sigmas"))


def _node(
    scheduler: Any, timestep: float, sample: torch.Tensor, output: torch.Tensor
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Return noise level, latent and slope of a step, where the latent is the image plus noise times its level.

    For a flow, the level runs from 1 to 0 and the latent is as it is: its slope is what the network predicts.
    """
    if _is_flow(scheduler):
        return timestep / float(scheduler.config.get("num_train_timesteps", 1000)), sample, output
    if "Euler" in type(scheduler).__name__ or "Heun" in type(scheduler).__name__:
        raise BackendError("trace a run of DDIM or DPM-Solver, whose latents are not rescaled")
    kept = float(scheduler.alphas_cumprod[round(timestep)])
    signal, noise = kept**0.5, (1 - kept) ** 0.5
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        epsilon = signal * output + noise * sample
    elif kind == "epsilon":
        epsilon = output
    else:
        epsilon = (sample - signal * output) / noise
    return noise / signal, sample / signal, epsilon


def _costs(
    nodes: Sequence[tuple[float, torch.Tensor, torch.Tensor]], end: tuple[float, torch.Tensor], *, flow: bool
) -> list[list[float]]:
    """Return how far one Euler step from each node misses each later one, in units of the latent as it is denoised."""
    places = [*((level, latent) for level, latent, _ in nodes), end]
    costs = [[float("inf")] * len(places) for _ in places]
    for before, (level, latent, slope) in enumerate(nodes):
        for after in range(before + 1, len(places)):
            target, expected = places[after]
            missed = latent + (target - level) * slope - expected
            scale = 1.0 if flow else (1 + target**2) ** 0.5
            costs[before][after] = float(missed.pow(2).mean().sqrt()) / scale
    return costs


def own_timestep(scheduler: Any, timestep: float) -> int:
    """Return a timestep as one gives it to the scheduler."""
    if not _is_flow(scheduler):
        return round(timestep)
    if scheduler.config.get("use_dynamic_shifting"):
        raise BackendError("the schedule moves with the size of the image: its timesteps are not fitted yet")
    total = float(scheduler.config.get("num_train_timesteps", 1000))
    shift = float(scheduler.config.get("shift", scheduler.config.get("flow_shift", 1.0)))
    level = timestep / total
    return round(total * level / (shift - (shift - 1) * level))


def _distance(before: Tensors, after: Tensors) -> float:
    pairs = list(zip(before, after, strict=True))
    moved = sum(float((new - old).pow(2).sum()) for old, new in pairs)
    size = sum(float(new.pow(2).sum()) for _, new in pairs)
    return (moved / size) ** 0.5 if size else 0.0
