"""The training loop of every built-in network: as many steps as the time allows, ending with a decayed rate."""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

WARMUP = 0.03
"""Share of the time in which the learning rate rises."""
FLAT = 0.35
"""Share of the time after which the learning rate falls along a cosine."""
SETTLE = 0.2
"""Until this share of the time the average of the weights is only a copy of them."""
CLIP = 1.0
_SYNC_STEPS = 20

Say = Callable[[str], None]
Loss = Callable[["nn.Module"], "torch.Tensor"]


class NotRecorded(RuntimeError):
    """A training step could not be recorded as a CUDA graph."""


class Stop:
    """Notice SIGTERM, so that a run that must end early still writes what it has.

    Args:
        recorded: whether this process may replay its steps as CUDA graphs.
    """

    def __init__(self, recorded: bool = True) -> None:
        self.asked = False
        self.recorded = recorded
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def rate_at(progress: float) -> float:
    """Return the learning-rate factor at `progress` in [0, 1]: a linear rise, a level stretch, a cosine down to 1 %."""
    if progress < WARMUP:
        return max(progress, 1e-3) / WARMUP
    falling = max(0.0, min(1.0, progress) - FLAT) / (1 - FLAT)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * falling))


def fit(
    network: nn.Module,
    loss: Loss,
    *,
    seconds: float,
    rate: float,
    say: Say,
    stop: Stop | None = None,
    keep: Callable[[nn.Module], None] | None = None,
    average: bool = True,
    half: bool = True,
    recorded: bool = True,
    decay: float = 0.998,
) -> nn.Module:
    """Train for `seconds` and return the moving average of the network (the network itself without `average`).

    Args:
        network: float32, on its device; only weights that require gradients are trained.
        loss: draws a batch of its own on the network's device and returns a scalar.
        half: run the loss under bfloat16 autocast.
        recorded: replay a step as a CUDA graph, where there is CUDA.
        seconds: wall time in all; the schedule follows the clock, not a number of steps.
        decay: of the moving average, a step.
        keep: called with the average about every eighth of the time, to write a checkpoint.
    """
    import torch

    device = next(network.parameters()).device
    mean = copy.deepcopy(network).requires_grad_(False)
    pairs = [(m, w) for m, w in zip(mean.parameters(), network.parameters(), strict=True) if w.requires_grad]
    averages: list[torch.Tensor] = [m for m, _ in pairs]
    weights = [w for _, w in pairs]
    fast = device.type == "cuda"
    level = torch.zeros((), device=device)
    optimizer = torch.optim.AdamW(
        weights, lr=level, betas=(0.9, 0.99), weight_decay=1e-3, capturable=fast, fused=fast, foreach=False
    )

    def step() -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=half, cache_enabled=False):
            value = loss(network)
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()
        if average:
            with torch.no_grad():
                torch._foreach_lerp_(averages, [weight.detach() for weight in weights], 1 - decay)
        return value.detach()

    started = time.monotonic()
    run = (
        _captured(step, optimizer) if fast and recorded and (stop is None or stop.recorded) else _eager(step, optimizer)
    )
    count, next_report, next_keep = 0, 0.0, 1 / 8
    while (progress := (time.monotonic() - started) / seconds) < 1 and not (stop is not None and stop.asked):
        level.fill_(rate * rate_at(progress))
        value = run()
        count += 1
        if count % _SYNC_STEPS and device.type == "cuda":
            continue
        shown = value.item()
        if not math.isfinite(shown):
            say(f"step {count}: loss {shown}; stopped, the average of before is kept")
            break
        if progress < SETTLE or not average:
            with torch.no_grad():
                torch._foreach_copy_(averages, [weight.detach() for weight in weights])
        if progress >= next_report:
            say(f"step {count}, {100 * progress:.0f} % of the time, loss {shown:.4f}")
            next_report = progress + 0.1
        if keep is not None and progress >= next_keep:
            keep(mean)
            next_keep = progress + 1 / 8
    if not average:
        with torch.no_grad():
            torch._foreach_copy_(averages, [weight.detach() for weight in weights])
    for own, source in zip(mean.buffers(), network.buffers(), strict=True):
        own.copy_(source)
    say(f"{count} steps in {time.monotonic() - started:.0f} s")
    return mean.eval()


def _eager(step: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer) -> Callable[[], torch.Tensor]:
    def run() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        return step()

    return run


def _captured(step: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer) -> Callable[[], torch.Tensor]:
    """Record one whole step (batch, loss, gradients, update, average) as a CUDA graph.

    Raises:
        NotRecorded: it cannot be; random numbers may be unusable in this process from then on.
    """
    import torch

    run = _eager(step, optimizer)
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    try:
        with torch.cuda.graph(graph):
            value = step()
    except RuntimeError as error:
        raise NotRecorded(str(error).splitlines()[0]) from error

    def replay() -> torch.Tensor:
        graph.replay()
        return value

    return replay
