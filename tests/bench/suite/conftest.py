"""Records as measuring writes them, made up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from diffopt.bench.outcome import Fidelity, Latency, Measured, Memory
from diffopt.bench.statistics import paired_ratio

Record = Callable[..., dict[str, Any]]


@pytest.fixture
def record() -> Record:
    """Make the record of a program that took `times` seconds where the baseline took `base`."""

    def make(
        *,
        base: tuple[float, ...] = (1.0, 1.1, 1.0),
        times: tuple[float, ...] = (0.5, 0.5, 0.5),
        shares: tuple[float, ...] = (1.0,) * 9 + (0.8,),
        accuracy: float = 0.9,
        steps: int = 20,
        tier: str = "exact",
        draws: int = 2,
    ) -> dict[str, Any]:
        raced = paired_ratio(base, times, rng=np.random.default_rng(0))
        psnr = tuple(50.0 + index for index in range(10))
        outcome = Measured(
            latency=Latency(raced.ratio, raced.lo, raced.hi, len(base), base, times),
            fidelity=Fidelity(
                54.5,
                50.9,
                50.0,
                1.0,
                accuracy,
                0.9,
                0.0,
                1.0,
                10,
                (),
                seed_psnr_median=38.0,
                psnr=psnr,
                denoiser_error=0.0 if tier == "exact" else 0.5,
            ),
            memory=Memory(1, 1),
            build_s=0.0,
            load_s=1.0,
            first_call_s=1.0,
            witnesses=(
                {"transform": "scheduler-steps", "count": 2 * steps, "detail": ""},
                {"transform": "given-noise", "count": draws, "detail": ""},
            ),
            tier=tier,
        )
        return {
            "outcome": outcome.to_json(),
            "adherence": {"baseline": [1.0] * 9 + [0.8], "candidate": list(shares)},
        }

    return make
