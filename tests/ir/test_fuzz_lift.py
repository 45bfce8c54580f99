"""Cut, mixed, damaged and made-up scripts: each lifts or is refused in one line, and no file is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffopt.bench.corpus.fuzz import digest, lift, run_chunk
from diffopt.bench.corpus.scripts import made_up, mutated

CORPUS = Path(__file__).parent / "corpus"
PLAIN = (CORPUS / "sd15_minimal.py.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_three_hundred_inputs_leave_no_traceback_and_no_hang() -> None:
    before = digest(CORPUS)
    summary = run_chunk(range(1_000_000, 1_000_300), CORPUS)
    assert summary.failures == []
    assert summary.inputs == 300
    assert len(summary.outcomes) >= 3
    assert digest(CORPUS) == before


@pytest.mark.slow
@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_a_made_up_script_lifts_or_is_refused(seed: int) -> None:
    assert lift("made_up.py", made_up(random.Random(seed)))


@pytest.mark.slow
@settings(max_examples=40)
@given(st.integers(0, 2**32), st.text(max_size=40))
def test_a_damaged_script_lifts_or_is_refused(seed: int, other: str) -> None:
    assert lift("damaged.py", mutated(random.Random(seed), PLAIN, other))
