"""From what a search measured to one answer a task, and to what a task asks for: the same rules for every arm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from diffopt.bench.outcome import Measured, outcome_from_json
from diffopt.bench.statistics import median
from diffopt.bench.suite.measured_gates import absolute_gate, latency, lost, speedup
from diffopt.bench.suite.task import QUALITY_LOSS

Record = Mapping[str, Any]

SPARE = 1.1
"""How much faster than asked for a program has to have been in the search, before a better image is preferred to speed."""


def keeps_quality(record: Record) -> bool:
    """Tell whether a program ran, shows what prompts ask for, and lost no more quality than a task allows."""
    return absolute_gate(record).passed and lost(record) <= QUALITY_LOSS


def speed(record: Record) -> float:
    """Return how many times as fast as its baseline a program is; 0 for one that failed."""
    outcome = outcome_from_json(record["outcome"])
    return speedup(outcome).value if isinstance(outcome, Measured) else 0.0


def fastest_first(programs: Iterable[str], records: Mapping[str, Record]) -> list[str]:
    """Return the programs that keep the quality, the fastest first; of equals, what was measured first."""
    kept = [name for name in dict.fromkeys(programs) if name in records and keeps_quality(records[name])]
    return sorted(kept, key=lambda name: -speed(records[name]))


def chosen(programs: Sequence[str], records: Mapping[str, Record], required: float | None) -> str:
    """Return the program that answers a task, among those that a search measured; empty where none keeps the quality.

    The search saw other prompts than those that judge, and its bound is an estimate from few images. So the answer is the one
    whose images are nearest to the baseline's among those that were `SPARE` times as fast as asked for; where none was, the fastest.

    Args:
        required: the speed-up that is asked for, None where nobody knows.
    """
    kept = fastest_first(programs, records)
    if not kept:
        return ""
    enough = [] if required is None else [name for name in kept if speed(records[name]) >= SPARE * required]
    return max(enough, key=lambda name: _likeness(records[name])) if enough else kept[0]


def _likeness(record: Record) -> tuple[float, float]:
    outcome = outcome_from_json(record["outcome"])
    assert isinstance(outcome, Measured)
    return -max(lost(record), 0.0), outcome.fidelity.psnr_median


def winners(programs: Iterable[str], searched: Mapping[str, Record], judged: Mapping[str, Record]) -> Iterator[str]:
    """Yield the programs of a search, the fastest first, until one keeps the quality on the prompts that judge.

    The caller adds to `judged` what was yielded, before it goes on.
    """
    for name in fastest_first(programs, searched):
        yield name
        if name in judged and keeps_quality(judged[name]):
            return


def target_of(record: Record) -> dict[str, float]:
    """Return what a search's winner reached on the terms that judge: what tasks of `medium` difficulty ask for."""
    outcome = outcome_from_json(record["outcome"])
    assert isinstance(outcome, Measured)
    return {
        "speedup": round(speedup(outcome).value, 4),
        "latency_s": round(latency(outcome).value, 6),
        "baseline_s": round(median(outcome.latency.baseline_s), 6),
    }
