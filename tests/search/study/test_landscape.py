from __future__ import annotations

import json
from pathlib import Path

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.outcome import Failed, Measured
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import print_module
from diffopt.passes.pipeline import Trace, key
from diffopt.search.space import Legal, Refused
from diffopt.search.study.landscape import VERSION, Landscape
from diffopt.search.study.methods import random_legal, with_seeds
from diffopt.search.study.rows import outcome_of, row_of
from diffopt.search.study.synthetic import measured

STEPS = [(steps, solver) for steps in (4, 10) for solver in ("deis", "ddim")]
TRACES = (
    *(f'reduce-steps{{steps={steps} solver="{solver}" spacing="trailing"}}' for steps, solver in STEPS),
    "cache-features{interval=2 branch=0}",
)


@pytest.fixture
def landscape(module: ModuleOp, tmp_path: Path) -> Landscape:
    rows = [
        {"key": str(key(Trace.parse(trace), module)), "trace": trace, **row_of(measured(2.0 + at, 60.0 - 5 * at))}
        for at, trace in enumerate(TRACES)
    ]
    rows[-1] = {"key": rows[-1]["key"], "trace": TRACES[-1], **row_of(Failed("crash", "it died", "log"))}
    path = tmp_path / "landscape.json"
    path.write_text(json.dumps({"version": VERSION, "module": print_module(module), "rows": rows}))
    return Landscape.read(path)


def test_only_what_was_recorded_is_legal(landscape: Landscape) -> None:
    assert isinstance(landscape.space.check(Trace.parse(TRACES[0]).passes), Legal)
    other = landscape.space.check(Trace.parse("reduce-steps{steps=7}").passes)
    assert isinstance(other, Refused)
    assert other.refusal.reason == "not recorded"


def test_methods_find_all_that_was_recorded(landscape: Landscape) -> None:
    for method in (random_legal, with_seeds):
        trials = method(landscape, 5, 0)
        assert {t.candidate.key for t in trials} == set(landscape.outcomes)
        assert sum(isinstance(t.outcome, Failed) for t in trials) == 1
    assert landscape.reference() > 0


def test_a_row_keeps_what_a_search_reads() -> None:
    outcome = measured(3.0, 41.25, 0.9)
    back = outcome_of(json.loads(json.dumps(row_of(outcome))))
    assert isinstance(back, Measured)
    assert back.latency.ratio == pytest.approx(outcome.latency.ratio)
    assert (back.fidelity.psnr_median, back.memory, back.tier) == (41.25, outcome.memory, outcome.tier)


def test_a_landscape_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DiffoptError, match="record one"):
        Landscape.read(tmp_path / "none.json")
