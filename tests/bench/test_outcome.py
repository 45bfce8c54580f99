from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffopt.bench.outcome import Failed, Fidelity, Latency, Measured, Memory, Outcome, outcome_from_json

numbers = st.floats(0.001, 1000)
maybe = st.none() | numbers
latencies = st.builds(
    Latency, ratio=numbers, lo=numbers, hi=numbers, pairs=st.integers(5, 30), drift=numbers, load_average=numbers,
    baseline_s=st.lists(numbers).map(tuple), candidate_s=st.lists(numbers).map(tuple), stopped=st.text(),
)  # fmt: skip
fidelities = st.builds(
    Fidelity, psnr_median=numbers, psnr_p10=numbers, psnr_worst=numbers, ssim_median=numbers, prompt_accuracy=maybe,
    baseline_prompt_accuracy=maybe, feature_distance=maybe, seed_distance=maybe, images=st.integers(1, 100),
    worst=st.lists(st.tuples(st.text(), st.integers(), numbers)).map(tuple), ssim_p10=numbers, seed_psnr_median=maybe,
)  # fmt: skip
witnesses = st.fixed_dictionaries({"transform": st.text(), "count": st.integers(0, 9), "detail": st.text()})
measured = st.builds(
    Measured, latency=latencies, fidelity=fidelities, memory=st.builds(Memory, st.integers(), st.integers()),
    build_s=numbers, load_s=numbers, first_call_s=numbers, witnesses=st.lists(witnesses).map(tuple),
    tier=st.sampled_from(["exact", "near"]), environment=st.dictionaries(st.text(), st.text()), deterministic=st.booleans(),
)  # fmt: skip
failed = st.builds(Failed, kind=st.text(), message=st.text(), log=st.text())

STORED_1 = {"version": 1, "status": "failed", "kind": "crash", "message": "exited with code 3", "log": ""}


@given(measured | failed)
@settings(max_examples=50, deadline=None)
def test_an_outcome_comes_back_from_json(outcome: Outcome) -> None:
    assert outcome_from_json(json.loads(json.dumps(outcome.to_json(), allow_nan=False))) == outcome


def test_reads_what_version_1_stored() -> None:
    assert outcome_from_json(STORED_1) == Failed("crash", "exited with code 3")


@pytest.mark.parametrize("change", [{"version": 2}, {"status": "fine"}])
def test_refuses_what_it_does_not_know(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"version|status"):
        outcome_from_json(STORED_1 | change)
