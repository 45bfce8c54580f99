"""Hints change what is drawn and how often; what is legal stays legal and in reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from diffopt.passes.pipeline import Trace
from diffopt.search.hints import Hint, HintedSpace
from diffopt.search.variation import any_instance


def drawn(space: Any, count: int = 400) -> Counter[str]:
    rng = np.random.default_rng(0)
    return Counter(step.name for _ in range(count) if (step := any_instance((), space, rng)) is not None)


def test_without_hints_nothing_is_different(synthetic: Callable[..., Any]) -> None:
    plain = synthetic()
    hinted = HintedSpace(plain, lambda: ())
    assert hinted.names == plain.names
    assert hinted.instances("fewer", ()) == plain.instances("fewer", ())
    assert hinted.check(()) == plain.check(())


def test_a_pass_is_drawn_by_its_weight_and_none_is_left_out(synthetic: Callable[..., Any]) -> None:
    plain = synthetic()
    hinted = HintedSpace(plain, lambda: (Hint("fuse", 4.0), Hint("tile", 0.0)))
    usual, steered = drawn(plain), drawn(hinted)
    assert steered["fuse"] > 2 * usual["fuse"]
    assert 0 < steered["tile"] < usual["tile"]
    assert set(steered) == set(usual)


def test_values_within_the_range_come_three_times_as_often_and_the_others_still_come(
    synthetic: Callable[..., Any],
) -> None:
    plain = synthetic()
    hinted = HintedSpace(plain, lambda: (Hint("fewer", 1.0, {"count": (4, 8)}),))
    counts = Counter(hinted.instances("fewer", ()))
    assert set(counts) == set(plain.instances("fewer", ()))
    within = {step for step in counts if "count=4 " in str(Trace((step,))) or "count=6 " in str(Trace((step,)))}
    within |= {step for step in counts if "count=8 " in str(Trace((step,)))}
    assert {counts[step] for step in within} == {3}
    assert {counts[step] for step in set(counts) - within} == {1}
    assert hinted.instances("fuse", ()) == plain.instances("fuse", ())
