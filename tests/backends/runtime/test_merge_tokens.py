"""Merged tokens: means of those that are alike, given back to each."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from diffopt.backends.runtime.merge_tokens import assignment, merged, unmerged


@given(rows=st.integers(2, 6), columns=st.integers(2, 6), ratio=st.floats(0.05, 0.75), seed=st.integers(0, 9))
def test_each_token_has_a_place_and_each_place_a_token(rows: int, columns: int, ratio: float, seed: int) -> None:
    tokens = torch.randn(2, rows * columns, 5, generator=torch.Generator().manual_seed(seed))
    places, count = assignment(tokens, rows, columns, ratio)
    kept = len(range(0, rows, 2)) * len(range(0, columns, 2))
    assert count == rows * columns - min(int(ratio * rows * columns), rows * columns - kept)
    for row in places:
        assert sorted(row.unique().tolist()) == list(range(count))


def test_tokens_that_are_equal_merge_without_a_trace() -> None:
    pattern = torch.randn(1, 1, 4, generator=torch.Generator().manual_seed(0))
    tokens = pattern.expand(1, 16, 4).contiguous()
    places, count = assignment(tokens, 4, 4, 0.75)
    assert count == 4
    assert torch.allclose(unmerged(merged(tokens, places, count), places), tokens)


def test_those_most_alike_merge_first() -> None:
    tokens = torch.eye(4).unsqueeze(0)
    tokens[0, 3] = tokens[0, 0]
    places, count = assignment(tokens, 2, 2, 0.25)
    assert count == 3
    assert places[0, 3] == places[0, 0]
