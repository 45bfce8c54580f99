from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from diffopt.agents import Agent
from diffopt.bench.outcome import Outcome
from diffopt.composition import (
    Chain,
    CompositionMap,
    MapProposer,
    archived,
    composition_maps,
    effects,
    predicted,
    with_prior,
)
from diffopt.ir.errors import DiffoptError
from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace, run
from diffopt.search.engine import Engine, Settings
from diffopt.search.exchange import exported, imported
from diffopt.search.store import Store
from diffopt.search.study.synthetic import Synthetic, measured

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

VALUES: dict[Chain, tuple[float, float]] = {
    (): (0.0, 0.0),
    ("a",): (0.5, 1.0),
    ("b",): (0.3, 0.0),
    ("a", "b"): (0.6, 1.5),
    ("c", "a"): (0.4, 1.0),
}


def test_a_pass_gets_the_median_of_what_it_did_wherever_it_alone_made_the_difference() -> None:
    singles = {row.passes: row for row in effects(VALUES)[0]}
    assert [singles[name,].count for name in "abc"] == [2, 2, 1]
    assert [singles[name,].speed for name in "ab"] == pytest.approx([0.4, 0.2])
    assert singles["b",].distance == pytest.approx(0.25)
    assert singles["c",].speed == pytest.approx(-0.1)


def test_a_pair_gets_what_is_beyond_both_alone() -> None:
    (pair,) = effects(VALUES)[1]
    assert (pair.passes, pair.count) == (("a", "b"), 1)
    assert [pair.speed, pair.distance] == pytest.approx([-0.2, 0.5])


def test_what_was_measured_is_predicted_where_the_map_holds_it() -> None:
    values = {chain: value for chain, value in VALUES.items() if chain != ("c", "a")}
    found = CompositionMap("m", "cpu", "", 3, *effects(values))
    speed, _ = predicted(found, ("a", "b"))
    singles = {row.passes: row.speed for row in found.singles}
    assert speed == pytest.approx(singles["a",] + singles["b",] - 0.2)


def test_the_prior_proposes_legal_chains_the_fastest_expected_first(standard_module: ModuleOp) -> None:
    names = ["channels-last", "fuse-qkv", "guidance-window{stop=0.6}"]
    texts = [str(Trace.parse(name)) for name in names]
    values: dict[Chain, tuple[float, float]] = {(): (0.0, 0.0)}
    values |= {(text,): (math.log(1 + 0.1 * place), 0.0) for place, text in enumerate(texts)}
    found = CompositionMap("m", "cpu", "", 3, *effects(values))
    proposed = MapProposer(found).propose(standard_module, (), 4)
    assert len(proposed) == 4
    assert all(not isinstance(run(trace, standard_module), Refusal) for trace in proposed)
    assert {text for text in texts[1:]} == {str(one.spec(include_default=True)) for one in proposed[0]}


def test_a_file_that_is_no_store_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    file.write_text("no")
    with pytest.raises(DiffoptError, match="cannot be read as a store"):
        composition_maps([file])


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE run SET manifest = '[]'",
        "UPDATE run SET manifest = '{'",
        "UPDATE outcome SET json = json_set(json, '$.latency.ratio', 0)",
        "UPDATE outcome SET json = json_remove(json, '$.latency')",
    ],
)
def test_a_store_of_broken_measurements_is_one_clear_line(tmp_path: Path, change: str) -> None:
    problem, place = Synthetic(seed=1), tmp_path / "a#b%41?c.sqlite"
    with Store(place) as store:
        settings = Settings(rounds=1, offspring=4)
        engine = Engine(problem.module, store, run_id="search", space=problem, settings=settings)
        for _ in range(3):
            asked = engine.ask()
            assert asked is not None
            engine.tell(asked, problem.evaluate(asked))
    with closing(sqlite3.connect(place)) as db:
        db.execute("UPDATE candidate SET trace = ''")
        db.execute(change)
        db.commit()
    with pytest.raises(DiffoptError, match="holds what is no measurement"):
        composition_maps([place])


def store_with(place: Path, programs: dict[str, Outcome], target: str = "cpu") -> Path:
    with Store(place) as store:
        store.open_run("search", {"target": target, "seed": 0})
        for number, (trace, outcome) in enumerate(programs.items()):
            added = store.add_candidate(
                "search", trace=str(Trace.parse(trace)), key=f"k{number}", origin="rules", facts={}, predicted=None
            )
            store.tell("search", added.id, outcome)
    return place


def test_the_best_programs_of_earlier_runs_are_proposed_before_the_rules(
    tmp_path: Path, standard_module: ModuleOp
) -> None:
    slow, fast = "channels-last", "reduce-steps{steps=4},guidance-window{stop=0.6}"
    one = store_with(tmp_path / "one", {slow: measured(1.1, 60.0), fast: measured(9.0, 45.0)})
    other = store_with(tmp_path / "other", {"fuse-qkv": measured(3.0, 30.0)}, "cuda:0")
    with Store(tmp_path / "both") as both:
        for place in (one, other):
            with Store(place) as store:
                imported(both, exported(store))
    assert {trial.candidate.trace for trial in archived(tmp_path / "both", "cpu")} == {
        str(Trace.parse(slow)),
        str(Trace.parse(fast)),
    }
    made = with_prior(lambda folder, module: Agent([]), tmp_path / "both", "cpu")(tmp_path, standard_module)
    assert [proposer.name for proposer in made.proposers] == ["archive", "composition-map"]
    assert str(made.proposers[0].propose(standard_module, (), 1)[0]) == str(Trace.parse(fast))
