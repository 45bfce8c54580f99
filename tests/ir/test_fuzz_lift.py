"""Cut, mixed, damaged and made-up scripts: each lifts or is refused in one line, and no file is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffopt.bench.corpus.fuzz import digest, lift, run_chunk
from diffopt.bench.corpus.scripts import made_up, mutated

CORPUS = Path(__file__).parent / "corpus"
PLAIN = (CORPUS / "sd15_minimal.py.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_hundred_inputs_leave_no_traceback_and_no_hang(request: pytest.FixtureRequest) -> None:
    before, count = digest(CORPUS), 1000 if request.config.getoption("--thorough") else 100
    summary = run_chunk(range(1_000_000, 1_000_000 + count), CORPUS)
    assert summary.failures == []
    assert summary.inputs == count
    assert len(summary.outcomes) >= 3
    assert digest(CORPUS) == before


@pytest.mark.slow
@given(st.integers(0, 2**32))
def test_a_made_up_script_lifts_or_is_refused(seed: int) -> None:
    assert lift("made_up.py", made_up(random.Random(seed)))


@pytest.mark.slow
@given(st.integers(0, 2**32), st.text(max_size=40))
def test_a_damaged_script_lifts_or_is_refused(seed: int, other: str) -> None:
    assert lift("damaged.py", mutated(random.Random(seed), PLAIN, other))
