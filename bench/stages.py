"""Where the time of one call goes: encode, each step's denoiser, decode, and what lies around them."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from diffopt.backends.runtime.replaced import replaced
from diffopt.bench.statistics import median

Times = dict[str, float]
AROUND = "around them"
METHODS = {"vae": ("decode", "encode")}
"""What a pipeline calls of a component, where that is not its `forward`."""


def stage_times(
    pipe: Any, call: Callable[[], object], *, runs: int = 15, clock: Callable[[], float] = time.perf_counter
) -> Times:
    """Return seconds a call spends in each component, and around them; medians over `runs` calls after three others.

    A component's time holds all its calls: the denoiser's that of all steps. On a processor only, where a call that
    returns is done.
    """
    found: list[defaultdict[str, float]] = []
    for _ in range(runs + 3):
        with _timed(pipe, clock) as times:
            started = clock()
            call()
            times["total"] = clock() - started
        found.append(times)
    names = dict.fromkeys(name for times in found for name in times)
    medians = {name: median([times[name] for times in found[3:]]) for name in names}
    total = medians.pop("total")
    return {**medians, AROUND: max(0.0, total - sum(medians.values()))}


@dataclass(frozen=True)
class Stage:
    """Seconds a call spends in a component, and each time it is asked: of the denoiser, its steps."""

    name: str
    seconds: float
    calls: tuple[float, ...]


def step_times(
    pipe: Any, call: Callable[[], object], *, runs: int = 15, clock: Callable[[], float] = time.perf_counter
) -> tuple[Stage, ...]:
    """Return the stages of a call in the order they begin, and what lies around them; medians as `stage_times` has."""
    found: list[tuple[float, defaultdict[str, list[float]]]] = []
    for _ in range(runs + 3):
        each: defaultdict[str, list[float]] = defaultdict(list)
        with _timed(pipe, clock, each):
            started = clock()
            call()
            found.append((clock() - started, each))
    timed = found[3:]
    stages = []
    for name in timed[0][1]:
        asked = [each[name] for _, each in timed if len(each[name]) == len(timed[0][1][name])]
        calls = tuple(median([times[index] for times in asked]) for index in range(len(asked[0])))
        stages.append(Stage(name, median([sum(times) for times in asked]), calls))
    around = max(0.0, median([total for total, _ in timed]) - sum(stage.seconds for stage in stages))
    return (*stages, Stage(AROUND, around, (around,)))


@contextlib.contextmanager
def _timed(
    pipe: Any, clock: Callable[[], float], each: defaultdict[str, list[float]] | None = None
) -> Iterator[defaultdict[str, float]]:
    """Time every call of a component for a while; calls inside one another count once, for the outer."""
    import torch

    times: defaultdict[str, float] = defaultdict(float)
    busy: list[str] = []

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if busy:
                return function(*args, **kwargs)
            busy.append(name)
            started = clock()
            try:
                return function(*args, **kwargs)
            finally:
                times[name] += (took := clock() - started)
                if each is not None:
                    each[name].append(took)
                busy.pop()

        return run

    with contextlib.ExitStack() as stack:
        for name, part in pipe.components.items():
            if not isinstance(part, torch.nn.Module):
                continue
            for method in filter(functools.partial(hasattr, part), METHODS.get(name, ("forward",))):
                stack.enter_context(replaced(part, **{method: timed(name, getattr(part, method))}))
        yield times


def scaled(shares: Times, total: float) -> Times:
    """Return times that keep their shares and sum to `total` seconds."""
    whole = sum(shares.values())
    return {name: value / whole * total for name, value in shares.items()} if whole else {}
