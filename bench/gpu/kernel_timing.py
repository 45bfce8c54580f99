"""Correctness and time of one case: against float64, eager torch and inductor, interleaved."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from diffopt.bench.gpu.kernel_cases import Arguments, Case, Function
from diffopt.bench.statistics import median, paired_ratio

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
CACHE = 120e6
"""Bytes that inputs must exceed together to come from memory, not from a cache: twice an H200's level two."""
SAMPLE_S = 1e-3
"""Seconds one sample takes at least."""


def measured(case: Case, *, device: str, seed: int, rounds: int, in_inductor: bool) -> dict[str, JSON]:
    """Return what one case came to: its error against float64, each arm's median in microseconds, and the ratios.

    Arms run in a new random order each round, over input sets that together exceed the cache; on a GPU as replays of
    a captured graph. An arm that fails is told under `failures`; only the kernel's own failure is raised.
    in_inductor: measure the kernel inside a compiled function as well.
    """
    import torch

    torch._dynamo.reset()
    generator = torch.Generator(device).manual_seed(seed)
    first = case.make(generator)
    error, out_bytes = _checked(case, first, device)
    moved = _bytes(first) + out_bytes
    sets = [first] + [case.make(generator) for _ in range(min(int(CACHE // moved), 15) if device != "cpu" else 0)]
    arms: dict[str, Function] = {"eager": case.plain, "ours": case.ours, **case.variants}
    if device != "cpu":
        arms["inductor"] = torch.compile(case.plain, dynamic=False, fullgraph=True)
        if in_inductor:
            arms["ours-in-inductor"] = torch.compile(case.ours, dynamic=False, fullgraph=True)
    ready, failures = {}, {}
    for name, function in arms.items():
        try:
            ready[name] = _prepared(function, sets, device)
        except Exception:
            failures[name] = traceback.format_exc(limit=-4)[-1500:]
            if name == "ours":
                raise
    samples = _samples(ready, rounds, random.Random(seed))
    found: dict[str, JSON] = {
        "error": error,
        "tolerance": case.tolerance,
        "bytes": moved,
        "flops": case.flops,
        "median_us": {name: round(median(seconds) * 1e6, 3) for name, seconds in samples.items()},
        "spread_us": {name: [round(min(s) * 1e6, 3), round(max(s) * 1e6, 3)] for name, s in samples.items()},
        "failures": failures,
    }
    ours = median(samples["ours"])
    found["gb_per_s"] = round(moved / ours / 1e9, 1)
    found["tflop_per_s"] = round(case.flops / ours / 1e12, 2)
    found["against"] = _ratios(samples, seed)
    return found


def _checked(case: Case, arguments: Arguments, device: str) -> tuple[float, int]:
    """Return the relative error of the kernel against float64, and the bytes it wrote.

    Raises ValueError beyond the tolerance, or where an element was not written: freed memory is poisoned first.
    """
    import torch

    found = case.ours(*arguments)
    out_bytes = _bytes(found if isinstance(found, tuple) else (found,))
    del found
    poison = torch.full((out_bytes // 4 + 1024,), float("nan"), device=device)
    del poison
    found = case.ours(*arguments)
    seen = case.wide(found) if case.wide is not None else found
    wanted = case.plain(*(_double(argument) for argument in arguments))
    pairs = list(zip(seen, wanted, strict=True)) if isinstance(wanted, tuple) else [(seen, wanted)]
    worst = 0.0
    for got, expected in pairs:
        off = (got.double() - expected.double()).norm() / expected.double().norm()
        worst = max(worst, float(off)) if torch.isfinite(off) else float("inf")
    if not worst <= case.tolerance:
        raise ValueError(f"relative error {worst:.3g} against float64, above {case.tolerance:g}")
    return worst, out_bytes


def _double(argument: Any) -> Any:
    import torch

    return argument.double() if isinstance(argument, torch.Tensor) and argument.is_floating_point() else argument


def _bytes(values: Sequence[Any]) -> int:
    import torch

    return sum(value.numel() * value.element_size() for value in values if isinstance(value, torch.Tensor))


def _prepared(function: Function, sets: Sequence[Arguments], device: str) -> tuple[Callable[[int], float], int]:
    """Return what runs the function over all sets so many times and says the seconds, and how often that fills a sample."""
    import torch

    if device == "cpu":
        function(*sets[0])
        return lambda times: _host_seconds(function, sets, times) / len(sets), 1
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            for arguments in sets:
                function(*arguments)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for arguments in sets:
            function(*arguments)
    start, end = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]

    def seconds(times: int) -> float:
        start.record()
        for _ in range(times):
            graph.replay()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / times / len(sets)

    seconds(2)
    return seconds, max(1, int(SAMPLE_S / (seconds(2) * len(sets))))


def _host_seconds(function: Function, sets: Sequence[Arguments], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        for arguments in sets:
            function(*arguments)
    return (time.perf_counter() - began) / times


def _samples(
    ready: Mapping[str, tuple[Callable[[int], float], int]], rounds: int, order: random.Random
) -> dict[str, list[float]]:
    """Return each arm's seconds, one a round, the arms of a round in random order."""
    found: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(rounds):
        for name in order.sample(list(ready), len(ready)):
            seconds, times = ready[name]
            found[name].append(seconds(times))
    return found


def _ratios(samples: Mapping[str, list[float]], seed: int) -> dict[str, JSON]:
    """Return each other arm's time over ours, with its interval."""
    import numpy

    found: dict[str, JSON] = {}
    for name, seconds in samples.items():
        if name != "ours":
            interval = paired_ratio(seconds, samples["ours"], rng=numpy.random.default_rng(seed))
            found[name] = [round(value, 4) for value in (interval.ratio, interval.lo, interval.hi)]
    return found


def ceilings(device: str, *, side: int = 8192, copied: int = 1 << 30) -> dict[str, JSON]:
    """Return what the device reaches: a copy (bytes read and written), and matrix products in bfloat16 and float8.

    side: of the square matrices, of random numbers. copied: bytes of the tensor copied.
    """
    import torch

    from diffopt.backends.kernels.quantize_rows import quantize_rows, scaled_matmul

    generator = torch.Generator(device).manual_seed(0)
    source = torch.randn(copied // 4, generator=generator, device=device)
    target = torch.empty_like(source)
    one, other = (torch.randn(side, side, generator=generator, device=device).bfloat16() for _ in range(2))
    work: dict[str, tuple[Function, float]] = {
        "copy_gb_per_s": (lambda: target.copy_(source), 2 * copied / 1e9),
        "bf16_tflop_per_s": (lambda: one @ other, 2 * side**3 / 1e12),
    }
    found: dict[str, JSON] = {}
    try:
        low, scales = quantize_rows(one)
        heavy, heavy_scales = quantize_rows(other)
        work["fp8_tflop_per_s"] = (lambda: scaled_matmul(low, scales, heavy, heavy_scales), 2 * side**3 / 1e12)
    except Exception:  # noqa: BLE001 - its trace is the result
        found["failure"] = traceback.format_exc(limit=-4)[-1500:]
    for name, (function, amount) in work.items():
        try:
            seconds, _ = _prepared(function, [()], device)
            found[name] = round(amount / median([seconds(3) for _ in range(5)]), 1)
        except Exception:  # noqa: BLE001 - its trace is the result
            found[f"{name}_failure"] = traceback.format_exc(limit=-4)[-1500:]
    return found
