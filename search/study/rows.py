"""Outcomes as short rows: what a search reads of them, without images and logs."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from diffopt.bench.outcome import Failed, Fidelity, Latency, Measured, Memory, Outcome


def row_of(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as a row of numbers."""
    if isinstance(outcome, Failed):
        return {"failed": outcome.kind, "message": outcome.message.splitlines()[0][:120] if outcome.message else ""}
    latency, fidelity = outcome.latency, outcome.fidelity
    return {
        "ratio": [round(value, 5) for value in (latency.ratio, latency.lo, latency.hi)],
        "pairs": latency.pairs,
        "baseline_s": round(median(latency.baseline_s), 6),
        "candidate_s": round(median(latency.candidate_s), 6),
        "drift": round(latency.drift, 3),
        "psnr": [round(value, 3) for value in (fidelity.psnr_median, fidelity.psnr_p10, fidelity.psnr_worst)],
        "ssim": round(fidelity.ssim_median, 5),
        "accuracy": fidelity.prompt_accuracy,
        "images": fidelity.images,
        "memory": [outcome.memory.peak_bytes, outcome.memory.baseline_peak_bytes],
        "tier": outcome.tier,
        "build_s": round(outcome.build_s, 2),
        "idle": list(outcome.inactive),
    }


def outcome_of(row: Mapping[str, Any]) -> Outcome:
    """Read a row back; what it does not hold is empty."""
    if "failed" in row:
        return Failed(row["failed"], row["message"])
    ratio, low, high = row["ratio"]
    middle, tenth, worst = row["psnr"]
    accuracy = row["accuracy"]
    return Measured(
        latency=Latency(
            ratio, low, high, row["pairs"], (row["baseline_s"],), (row["candidate_s"],), drift=row["drift"]
        ),
        fidelity=Fidelity(middle, tenth, worst, row["ssim"], accuracy, None, None, None, row["images"], ()),
        memory=Memory(*row["memory"]),
        build_s=row["build_s"],
        load_s=0.0,
        first_call_s=0.0,
        witnesses=tuple({"transform": name, "count": 0} for name in row["idle"]),
        tier=row["tier"],
    )
