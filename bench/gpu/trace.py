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


def profiled(run: Any) -> list[tuple[str, float]]:
    """Run something under the profiler and return its host-side events with their start times in microseconds."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as prof:
        run()
    return [
        (event.name, float(event.time_range.start)) for event in prof.events() or () if "CPU" in str(event.device_type)
    ]
