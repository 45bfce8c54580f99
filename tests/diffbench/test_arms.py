"""Arms that plan: by a language model over an endpoint or a transcript, or by what stands in for one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffopt.bench.outcome import Failed, Outcome
from diffopt.diffbench.arms import ARMS, Measuring, mechanical
from diffopt.diffbench.command import ARMS_HELP, _planner, add_arguments
from diffopt.diffbench.mechanical import MechanicalPlanner
from diffopt.diffbench.problem import WORDS, BaselineProblem
from diffopt.diffbench.running import baselines_of
from diffopt.ir.errors import DiffoptError
from diffopt.passes.pipeline import Trace
from diffopt.search.records import Candidate
from tests.llm.conftest import ScriptedEndpoint

SAYS = {
    "plans": [
        {"passes": [{"name": "reduce-steps", "options": {"steps": 4}}]},
        {"passes": [{"name": "export", "options": {}}]},
        {"passes": [{"name": "reduce-steps", "options": {"steps": 3}}, {"name": "fuse-qkv", "options": {}}]},
    ]
}


class Unmeasured(BaselineProblem):
    """Every program fails, and is kept."""

    def __init__(self) -> None:
        super().__init__(baselines_of(0, 1)[0], lambda code, trace: {})
        self.traces: list[str] = []

    def evaluate(self, candidate: Candidate) -> Outcome:
        """See `Searchable`."""
        self.traces.append(candidate.trace)
        return Failed("crash", "not measured")


@pytest.fixture
def problem() -> Unmeasured:
    return Unmeasured()


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    found = ScriptedEndpoint()
    yield found
    found.close()


def options(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(given)


def test_a_language_model_plans_over_an_endpoint_and_again_from_its_transcript(
    problem: Unmeasured, endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    endpoint.says(SAYS)
    asked = _planner(options("--llm-base-url", endpoint.url, "--llm-model", "scripted"), tmp_path)
    ARMS["best-of-n"].search(problem, 2, 0, asked["plan"])
    assert [Trace.parse(text).passes[0].name for text in problem.traces] == ["reduce-steps", "reduce-steps"]
    assert "scripted" in asked["planner"]
    (transcript,) = (tmp_path / "llm").iterdir()
    again, sent = Unmeasured(), len(endpoint.seen)
    replayed = _planner(options("--llm-model", "scripted", "--llm-replay", str(transcript)), tmp_path)
    ARMS["best-of-n"].search(again, 2, 0, replayed["plan"])
    assert (again.traces, len(endpoint.seen)) == (problem.traces, sent)


def test_a_program_beyond_the_words_costs_nothing(problem: Unmeasured) -> None:
    measuring = Measuring(problem, 1)
    assert measuring(Trace.parse("export"), "test") is None
    assert not measuring.spent
    first = measuring(Trace.parse("fuse-qkv"), "test")
    assert first is not None
    assert measuring.spent
    assert measuring(Trace.parse("fuse-qkv"), "test") is first
    assert measuring(Trace.parse("reduce-steps"), "test") is None


def test_without_a_language_model_plans_are_the_rules_then_new_ones(problem: Unmeasured) -> None:
    planner = MechanicalPlanner(problem, 0)
    rules = [trace for proposer in problem.seeds() for trace in proposer.propose(problem.module, (), 99)]
    plans = planner.propose(problem.module, (), len(rules) + 3)
    assert plans[: len(rules)] == rules
    assert len({problem.space.check(plan.passes).key for plan in plans}) == len(rules) + 3  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm.plans])
def test_an_arm_that_plans_measures_no_more_than_its_budget(problem: Unmeasured, name: str) -> None:
    ARMS[name].search(problem, 9, 0, mechanical)
    assert len(problem.traces) == len(set(problem.traces)) == 9


def test_the_space_is_what_the_words_offer(problem: Unmeasured) -> None:
    assert set(problem.space.names) == set(WORDS)


@pytest.mark.parametrize(
    ("given", "what"),
    [(("--arms", "us"), "no arm 'us'"), (("--budgets", "many"), "no numbers"), (("--baselines", "0"), "at least 1")],
)
def test_a_wrong_option_is_said_in_one_line(given: tuple[str, str], what: str, tmp_path: Path) -> None:
    from diffopt.bench.suite.measuring import Protocol
    from diffopt.diffbench.command import searched

    with pytest.raises(DiffoptError, match=what):
        searched(options(*given, "-o", str(tmp_path / "out.json.gz")), Protocol(), print)


def test_help_names_every_arm_and_says_who_plans() -> None:
    named = ARMS_HELP.split(" of ")[1].split(" (")[0]
    assert named.split(",") == list(ARMS)
    assert all(name in ARMS_HELP.split(";")[1] for name, arm in ARMS.items() if arm.plans)
