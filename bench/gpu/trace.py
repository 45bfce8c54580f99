"""What the host did between the launches of a captured loop, by PyTorch's profiler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

LAUNCH = "cudaGraphLaunch"
WAITS = ("Synchronize", "MemcpyDtoH", "cudaMemcpy", "item", "_local_scalar_dense", "nonzero")
"""Parts of names of what makes a host wait for its device."""


def loop_excerpt(events: Sequence[tuple[str, float]], most: int = 40) -> dict[str, Any]:
    """Return what stands between the first and the last graph launch.

    Args:
        events: names and start times of all host-side events of one call, in any order.
        most: events of the excerpt.
    """
    ordered = sorted(events, key=lambda event: event[1])
    places = [index for index, (name, _) in enumerate(ordered) if LAUNCH in name]
    if not places:
        return {"launches": 0, "waits": [], "between": {}, "excerpt": []}
    inside = ordered[places[0] : places[-1] + 1]
    names = [name for name, _ in inside]
    waits = [name for name in names if any(word in name for word in WAITS) and "Async" not in name]
    start = inside[0][1]
    return {
        "launches": len(places),
        "waits": waits,
        "between": dict(Counter(names)),
        "excerpt": [[name, round(time - start, 1)] for name, time in inside[:most]],
    }


def profiled(run: Any, most: int = 40) -> tuple[list[tuple[str, float]], list[list[Any]]]:
    """Run something under the profiler.

    Returns:
        Host-side events with their start times in microseconds, and the kernels that took longest: name, calls,
        microseconds in all.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as prof:
        run()
    events = prof.events() or ()
    host = [(event.name, float(event.time_range.start)) for event in events if "CPU" in str(event.device_type)]
    device = [(event.name, event.time_range.elapsed_us()) for event in events if "CPU" not in str(event.device_type)]
    return host, longest(device, most)


def longest(kernels: Sequence[tuple[str, float]], most: int) -> list[list[Any]]:
    """Return name, calls and time in all of the kernels that took longest, the longest first."""
    calls: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for name, time in kernels:
        calls[name[:120]] += 1
        times[name[:120]] += time  # type: ignore[assignment]
    return [[name, calls[name], round(time, 1)] for name, time in times.most_common(most)]
