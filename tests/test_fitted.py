"""Solvers that are fitted before a search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.agents import Agent
from diffopt.cli import main
from diffopt.events import Stage
from diffopt.fitted import UNGUIDED, FittedProposer, step_counts, with_fitted
from diffopt.ir.errors import DiffoptError
from diffopt.passes.pipeline import run
from diffopt.search.presets import RuleProposer
from diffopt.sources import lift


def fitted(module: ModuleOp, prompts: Sequence[str], counts: Sequence[int], under: str) -> list[str]:
    rows = {1: "0.9,-0.1", 2: "0.9,-0.1;0.5,-0.2,0.3,-0.1"}
    assert len(prompts) == 8
    ahead = f"{under}," if under else ""
    return [f'{ahead}fit-solver{{timesteps="{"900,400"[: 4 * n - 1]}" weights="{rows[n]}"}}' for n in counts]


def test_each_solver_is_proposed_with_the_best_engine_the_most_steps_first() -> None:
    module = lift("demo:shapes").module
    proposer = FittedProposer((1, 2), "demo:shapes", "cpu", fit=fitted)
    two, one, unguided = proposer.propose(module, [], 10)
    assert str(two).startswith('fit-solver{timesteps="900,400"')
    assert str(one).startswith('fit-solver{timesteps="900"')
    assert str(unguided).startswith('guidance-window{stop=0.0},fit-solver{timesteps="900"')
    for trace in (one, two, unguided):
        assert 'scope="pipeline"' in str(trace)
        assert isinstance(run(trace, module), ModuleOp)


def test_they_come_before_what_the_rules_propose() -> None:
    agent = with_fitted(lambda folder, module: Agent([RuleProposer()]), (2,), "demo:shapes", "cpu")
    made = agent(Path(), lift("demo:shapes").module)
    assert [proposer.name for proposer in made.proposers] == ["fitted", "rules"]


@pytest.mark.parametrize("text", ["", "two", "0", "2,,3", "21", "-2"])
def test_what_is_no_number_of_steps_is_one_line(text: str) -> None:
    with pytest.raises(DiffoptError, match=r"--fit-solver: .* is not numbers from 1 to 20"):
        step_counts(text)


def test_steps_that_are_kept_are_not_fitted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert main(["compile", "demo:shapes", "-o", out, "--keep-steps", "--fit-solver", "2"]) == 2
    assert "which are to be kept" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_fitting_is_told_before_it_begins() -> None:
    told: list[object] = []

    def fit(module: ModuleOp, prompts: Sequence[str], counts: Sequence[int], under: str) -> list[str]:
        told.append((*counts, under))
        return []

    FittedProposer((3, 2), "demo:shapes", "cpu", fit=fit, listen=told.append).propose(lift("demo:shapes").module, (), 4)
    assert told == [Stage("fitting solvers to the model, of 2, 3 steps"), (3, 2, ""), (2, UNGUIDED)]
