from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from diffopt.passes.pipeline import Trace
from diffopt.search import variation
from diffopt.search.repair import repair
from diffopt.search.space import Legal, Refused, tidy

START = 'fuse,fewer{count=10 solver="two"},engine{backend="x" half=true}'


def draws(problem: Any, operator: Callable[..., Any], *traces: str, count: int = 60) -> set[str]:
    parents = [problem.parse(text).passes for text in traces]
    made = (operator(*parents, problem, np.random.default_rng(n)) for n in range(count))
    return {str(Trace(steps)) for steps in made if steps is not None}


def test_insert_adds_one(synthetic: Callable[..., Any]) -> None:
    made = draws(synthetic(), variation.insert, START)
    assert len(made) > 20
    assert {len(synthetic().parse(text)) for text in made} == {4}


def test_drop_removes_one_and_never_the_last(synthetic: Callable[..., Any]) -> None:
    assert draws(synthetic(), variation.drop, "fuse,layout") == {"fuse", "layout"}
    assert draws(synthetic(), variation.drop, "fuse") == set()


def test_swap_changes_the_order_alone(synthetic: Callable[..., Any]) -> None:
    assert draws(synthetic(), variation.swap, "fuse,layout,graph") == {
        "layout,fuse,graph",
        "graph,layout,fuse",
        "fuse,graph,layout",
    }


def test_perturb_changes_one_option_within_its_range(synthetic: Callable[..., Any]) -> None:
    made = draws(synthetic(), variation.perturb, "window{stop=0.8},cache{interval=2}", count=200)
    for text in made:
        window, cache = synthetic().parse(text).passes
        assert (window.stop == 0.8) != (cache.interval == 2)
        assert 0 < window.stop < 1
        assert 2 <= cache.interval <= 8
    assert "window{stop=0.6},cache{interval=2}" in made
    assert "window{stop=0.2},cache{interval=2}" not in made


def test_perturb_moves_literals_and_flags(synthetic: Callable[..., Any]) -> None:
    made = draws(synthetic(), variation.perturb, 'engine{backend="x" half=true}', count=80)
    assert made == {
        'engine{backend="y" half=true}',
        'engine{backend="z" half=true}',
        'engine{backend="x" half=false}',
    }


def test_a_pass_without_options_has_no_neighbour(synthetic: Callable[..., Any]) -> None:
    assert draws(synthetic(), variation.perturb, "fuse") == set()


def test_crossover_keeps_the_order_of_both_and_no_pass_twice(synthetic: Callable[..., Any]) -> None:
    made = draws(synthetic(), variation.crossover, "fuse,layout", "tile{size=16},fuse,bits", count=200)
    for text in made:
        names = [step.name for step in synthetic().parse(text)]
        assert len(names) == len(set(names))
        assert names.count("fuse") == 1
        for before, after in (("tile", "bits"), ("fuse", "layout")):
            if before in names and after in names and "fuse" not in (before, after):
                assert names.index(before) < names.index(after)
    assert len(made) > 5


@pytest.mark.parametrize("operator", [variation.perturb, variation.drop, variation.swap, variation.replace])
def test_nothing_comes_of_nothing(operator: Callable[..., Any], synthetic: Callable[..., Any]) -> None:
    assert operator((), synthetic(), np.random.default_rng(0)) is None


def test_every_variation_can_be_mended_or_is_given_up(synthetic: Callable[..., Any]) -> None:
    problem, rng = synthetic(), np.random.default_rng(0)
    parents = [problem.parse(text).passes for text in (START, "graph,tile{size=32}", "cache{interval=2},fuse")]
    mended = 0
    for _ in range(400):
        steps, _name = variation.vary(parents, problem, rng)
        legal = repair(steps, problem, rng) if steps else None
        if legal is not None:
            mended += 1
            assert isinstance(problem.check(legal), Legal)
    assert mended > 250


def test_repair_leaves_a_legal_trace_alone(synthetic: Callable[..., Any]) -> None:
    steps = synthetic().parse(START).passes
    assert repair(steps, synthetic(), np.random.default_rng(0)) == steps


def test_repair_moves_before_it_drops(synthetic: Callable[..., Any]) -> None:
    steps = synthetic().parse('engine{backend="x" half=true},bits{width="w8"}').passes
    mended = repair(steps, synthetic(), np.random.default_rng(0))
    assert mended is not None
    assert [s.name for s in mended] == ["bits", "engine"]


def test_repair_drops_one_of_two_that_exclude_each_other(synthetic: Callable[..., Any]) -> None:
    steps = synthetic().parse('engine{backend="x" half=true},graph').passes
    left = {repair(steps, synthetic(), np.random.default_rng(n))[0].name for n in range(20)}  # type: ignore[index]
    assert left == {"engine", "graph"}


def test_tidy_leaves_out_what_changes_nothing(synthetic: Callable[..., Any]) -> None:
    problem = synthetic()
    steps = problem.parse("fuse,layout").passes
    plain = problem.check

    class Deaf:
        """A space where `layout` is without effect."""

        def check(self, steps: Any) -> Legal | Refused:
            verdict: Legal | Refused = plain(tuple(s for s in steps if s.name != "layout"))
            return verdict

    deaf: Any = Deaf()
    assert [s.name for s in tidy(steps, deaf)] == ["fuse"]
    assert tidy(steps, problem) == steps
