"""The paper's agent and its two controls, on scripted measurements and the loopback server."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.outcome import Failed, Fidelity, Latency, Measured, Memory
from diffopt.llm.best_of_n import BestOfN
from diffopt.llm.client import Client
from diffopt.llm.diffagent import DiffAgent
from diffopt.llm.planner import Planner
from diffopt.llm.sequential import Sequential
from diffopt.llm.transcript import Transcript
from diffopt.passes.pipeline import Trace, key
from tests.llm.conftest import Candidate, Trial

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedEndpoint


def outcome(ratio: float, psnr: float = 60.0) -> Measured:
    latency = Latency(ratio, ratio * 0.97, ratio * 1.03, 5, (1.0,) * 5, (1 / ratio,) * 5)
    fidelity = Fidelity(psnr, psnr - 3, psnr - 6, 0.99, None, None, None, None, 8, ())
    return Measured(latency, fidelity, Memory(1, 1), 0.0, 0.0, 0.0, (), "near" if psnr > 35 else "changed")


@dataclass
class Bench:
    """Measures by a rule: the fewer steps the faster."""

    module: ModuleOp
    budget: int
    log: list[str] = field(default_factory=list)

    @property
    def spent(self) -> bool:
        return len(self.log) >= self.budget

    def __call__(self, trace: Trace, origin: str) -> Trial | None:
        if self.spent:
            return None
        self.log.append(origin)
        name = key(trace, self.module)
        assert isinstance(name, str)
        steps = getattr(trace.passes[0], "steps", 50)
        return Trial(Candidate(str(trace), name), outcome(50 / steps) if steps > 2 else Failed("crash", "too few"))


def plan(steps: int) -> dict[str, object]:
    return {"reason": "fewer", "passes": [{"name": "reduce-steps", "options": {"steps": steps}}]}


def plans(*steps: int) -> dict[str, object]:
    return {"plans": [plan(n) for n in steps]}


def planner_for(endpoint: ScriptedEndpoint) -> Planner:
    client = Client(endpoint.url, "scripted", max_retries=0)
    return Planner(client, Transcript(None), goal="fastest", device={"device": "cpu"})


def keeps(trial: object) -> bool:
    return True


def test_the_papers_agent_asks_for_seven_then_refines_four_and_adds_three(
    endpoint: ScriptedEndpoint, module: ModuleOp
) -> None:
    endpoint.says(plans(40, 38, 36, 34, 32, 30, 28))
    for start in (26, 19, 12):
        endpoint.says(plans(start, start - 1, start - 2, start - 3))
        endpoint.says(plans(start - 4, start - 5, start - 6))
    bench = Bench(module, 100)
    agent = DiffAgent(planner_for(endpoint), keeps=keeps, rounds=4)
    assert agent.search(module, bench) == "4 rounds are done"
    assert [bench.log.count(f"diffagent:{n}") for n in (1, 2, 3, 4)] == [7, 7, 7, 7]
    asked = [seen.body["messages"][1]["content"] for seen in endpoint.seen]
    assert ["parents of this round" in text for text in asked] == [False, True, False, True, False, True, False]
    assert ["up to 7 plans" in text for text in asked] == [True] + [False] * 6
    assert "Give up to 4 plans." in asked[1]
    assert "Give up to 3 plans." in asked[2]
    assert asked[1].count("PSNR median") == 4, "only the parents are shown"
    assert asked[2].count("PSNR median") == 7


def test_parents_are_drawn_in_proportion_to_fitness_and_never_from_what_failed(
    endpoint: ScriptedEndpoint, module: ModuleOp
) -> None:
    agent = DiffAgent(planner_for(endpoint), keeps=lambda trial: trial.outcome.tier == "near")  # type: ignore[union-attr]
    trials = [
        Trial(Candidate("a", "a"), outcome(math.e**3)),
        Trial(Candidate("b", "b"), outcome(math.e)),
        Trial(Candidate("c", "c"), outcome(math.e, psnr=20.0)),
        Trial(Candidate("d", "d"), Failed("crash", "no")),
        Trial(Candidate("e", "e"), outcome(0.9)),
    ]
    assert [round(agent.fitness(trial), 3) for trial in trials] == [3.0, 1.0, 0.25, 0.0, 0.0]
    first = [agent.select(trials, number)[0].candidate.trace for number in range(400)]
    assert {trial.candidate.trace for trial in agent.select(trials, 0)} == {"a", "b", "c"}
    assert 0.65 < first.count("a") / 400 < 0.77  # 3 / 4.25 = 0.706
    assert agent.select(trials[3:], 0) == []


def test_it_stops_where_the_target_is_met(endpoint: ScriptedEndpoint, module: ModuleOp) -> None:
    endpoint.says(plans(40, 5, 30))
    agent = DiffAgent(
        planner_for(endpoint),
        keeps=keeps,
        satisfied=lambda trial: trial.outcome.latency.ratio > 8,  # type: ignore[union-attr]
    )
    bench = Bench(module, 100)
    assert agent.search(module, bench) == "the target is met in round 1"
    assert len(bench.log) == 2


def test_all_three_spend_the_same_budget_of_measurements(endpoint: ScriptedEndpoint, module: ModuleOp) -> None:
    for start in (40, 33):
        endpoint.says(plans(*range(start, start - 7, -1)))
    best = Bench(module, 10)
    assert BestOfN(planner_for(endpoint)).search(module, best) == "the budget of measurements is spent"
    for steps in range(40, 28, -1):
        endpoint.says(plans(steps))
    one = Bench(module, 10)
    assert Sequential(planner_for(endpoint)).search(module, one) == "the budget of measurements is spent"
    endpoint.script.clear()
    endpoint.says(plans(*range(40, 33, -1)))
    endpoint.says(plans(32, 31, 30, 29))
    agent = Bench(module, 10)
    assert DiffAgent(planner_for(endpoint), keeps=keeps).search(module, agent) == "the budget of measurements is spent"
    assert [len(bench.log) for bench in (best, one, agent)] == [10, 10, 10]


def test_best_of_n_keeps_every_figure_from_the_model_and_sequential_shows_them_all(
    endpoint: ScriptedEndpoint, module: ModuleOp
) -> None:
    endpoint.says(plans(40, 30))
    endpoint.says(plans(40, 20))
    endpoint.says(plans())
    BestOfN(planner_for(endpoint), most_questions=2).search(module, bench := Bench(module, 100))
    first, second = (seen.body["messages"] for seen in endpoint.seen[:2])
    assert first == second, "independent: the same question"
    assert len(bench.log) == 3
    endpoint.seen.clear()
    for each in (40, 30):
        endpoint.says(plans(each))
    for _ in range(3):
        endpoint.says(plans())
    Sequential(planner_for(endpoint)).search(module, Bench(module, 100))
    assert [seen.body["messages"][1]["content"].count("PSNR median") for seen in endpoint.seen] == [0, 1, 2, 2, 2]


def test_hints_are_kept_and_those_that_say_nothing_come_back_as_refused(
    endpoint: ScriptedEndpoint, module: ModuleOp
) -> None:
    ranges = [{"option": "steps", "low": 4, "high": 12}]
    hints = [
        {"name": "reduce-steps", "weight": 3, "ranges": ranges},
        {"name": "no-such-pass"},
        {"name": "reduce-steps", "ranges": [{"option": "solver", "low": 0, "high": 1}]},
        {"name": "guidance-window", "ranges": [{"option": "stop", "low": 1, "high": 0}]},
    ]
    endpoint.says({**plans(12), "hints": hints})
    planner = planner_for(endpoint)
    planner.propose(module, [], 3)
    assert [(hint.name, hint.weight) for hint in planner.hints] == [("reduce-steps", 3.0)]
    assert [item.diagnostic for item in planner.rejected] == [
        "unknown pass 'no-such-pass'",
        "reduce-steps has no numeric option 'solver'",
        "guidance-window: stop from 1 to 0 is no range",
    ]
