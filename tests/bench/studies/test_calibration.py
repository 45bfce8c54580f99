from __future__ import annotations

import numpy as np
import pytest

from diffopt.bench.studies.calibration import EFFECTS, collect, report


def test_planted_effects_are_judged_three_ways_and_the_study_goes_on_from_what_there_is() -> None:
    known: dict[str, np.ndarray] = {}
    for trials in (1, 2):
        known, costs = collect(
            known, EFFECTS, trials, 6, load=0, width=16, seed=0, seconds=60.0, inside=True,
        )  # fmt: skip
    assert {name: times.shape for name, times in known.items()} == {f"effect_{e}": (2, 4, 6) for e in EFFECTS}
    study = report(known, np.asarray([costs]))
    assert [row["percent"] for row in study["effects"]] == list(EFFECTS)
    assert study["effects"][0]["truth"] == 1.0
    assert study["effects"][3]["truth"] == pytest.approx(1.2, abs=0.02)
    for row in study["effects"]:
        for way in ("pairs", "racing", "blocks"):
            assert 0 <= row[way]["covered"] <= 1
            assert len(row["trials"][way]) == 2


def test_a_large_effect_without_noise_is_found_by_all_and_its_interval_holds_it() -> None:
    rng = np.random.default_rng(0)
    candidate = 1.0 + 0.001 * rng.random((5, 30))
    times = np.stack([1.2 * candidate, candidate, 1.2 * candidate, candidate], axis=1)
    (row,) = report({"effect_20": times}, np.asarray([[0.0, 0.01]]))["effects"]
    assert (row["pairs"]["faster"], row["racing"]["faster"], row["blocks"]["faster"]) == (1.0, 1.0, 1.0)
    assert (row["pairs"]["covered"], row["racing"]["pairs"]) == (1.0, 5.0)
