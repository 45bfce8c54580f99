from __future__ import annotations

import dataclasses

from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.outcome import Failed, Fidelity, Latency, Measured, Memory, Outcome
from diffopt.finals import closest, fallback
from diffopt.search.goals import Constraints
from diffopt.search.records import Candidate, Trial


def outcome(ratio: float, psnr: float, tier: str) -> Measured:
    return Measured(
        Latency(ratio, ratio, ratio, 5, (1.0,) * 5, (1 / ratio,) * 5),
        Fidelity(psnr, psnr, psnr, 1.0, None, None, None, None, 8, ()),
        Memory(1, 1), 1.0, 1.0, 1.0, (), tier, {}, True,
    )  # fmt: skip


def test_the_fallback_is_the_first_safe_program_that_meets_the_goal(standard_module: ModuleOp) -> None:
    asked: list[str] = []

    def judge(trace: str) -> Outcome:
        asked.append(trace)
        return outcome(3.0, 90.0, "exact") if "components" in trace else Failed("build", "no")

    final = fallback(standard_module, Constraints(tier="exact", keep_steps=True), judge, "cpu")
    assert final is not None
    assert final.candidate is not None
    assert [trace.split("{")[0] for trace in asked] == ["export", "export"]
    assert "components" in final.candidate.trace
    assert final.candidate.facts["steps_kept"] == 1.0


def test_no_fallback_is_better_than_one_that_misses_the_goal(standard_module: ModuleOp) -> None:
    asked: list[str] = []

    def judge(trace: str) -> Outcome:
        asked.append(trace)
        return outcome(3.0, 90.0, "near")

    assert fallback(standard_module, Constraints(tier="exact"), judge, "cuda:0") is None
    assert [trace.split("{")[0] for trace in asked] == ["compile"], "no CPU engine on a GPU"


def test_the_nearest_comes_first_and_says_what_it_misses() -> None:
    trials = [
        Trial(Candidate(i, f"trace {i}", str(i), "rules"), outcome(*given))
        for i, given in enumerate([(9.0, 20.0, "changed"), (5.0, 33.0, "traded"), (4.0, 34.0, "traded")])
    ]
    trials.append(Trial(Candidate(9, "fails", "9", "rules"), Failed("build", "no")))
    found = closest((), trials, Constraints(tier="near"), count=2)
    assert [(candidate.id, reasons) for candidate, _, reasons in found] == [
        (1, ("tier traded, asked for near",)),
        (2, ("tier traded, asked for near",)),
    ]
    assert dataclasses.is_dataclass(found[0][1])
