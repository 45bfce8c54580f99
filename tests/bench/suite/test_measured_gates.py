"""The absolute and the relative gate, on records; and S_p and S_a."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from diffopt.bench.outcome import Failed
from diffopt.bench.suite import tasks
from diffopt.bench.suite.judging import score
from diffopt.bench.suite.measured_gates import absolute_gate, quality_loss, relative_gate, required_of

Record = Callable[..., dict[str, Any]]
PLAIN = next(task for task in tasks() if task.level == 1 and task.family == "sd15" and task.steps == 20)
HARD = next(t for t in tasks() if t.level == 4 and t.target is not None and t.target.difficulty == "hard")
SOON = next(t for t in tasks() if t.level == 5 and t.target is not None and t.target.difficulty == "easy")


def test_a_program_that_fails_is_what_the_paper_calls_a_compile_error() -> None:
    failed = Failed("crash", "exited with code 1").to_json()
    verdict = absolute_gate({"outcome": failed, "adherence": None})
    assert (verdict.error, verdict.reasons) == ("compile", ("crash: exited with code 1",))


def test_images_that_do_not_show_their_prompts_fail_the_absolute_gate(record: Record) -> None:
    assert absolute_gate(record(shares=(0.9,) * 10)).passed
    reason = "80 % of what prompts ask for is shown, at least 90 are asked for"
    assert absolute_gate(record(shares=(0.8,) * 10)).reasons == (reason,)


def test_the_loss_is_relative_to_the_baseline_and_has_an_interval(record: Record) -> None:
    loss = quality_loss(record(shares=(1.0,) * 5 + (0.8,) * 5))
    assert loss.value == pytest.approx(1 - 9.0 / 9.8)
    assert 0 < loss.lo < loss.value < loss.hi < 0.2


def test_what_was_declared_has_to_be_seen(record: Record) -> None:
    assert relative_gate(PLAIN, record()).passed
    assert relative_gate(PLAIN, record(steps=10)).reasons == (
        "20 steps of its scheduler in 2 calls, 20 a call are declared",
    )
    assert relative_gate(PLAIN, record(draws=0)).reasons == ("0 of 2 calls drew from the generator they were given",)
    assert "nothing was to be changed" in relative_gate(PLAIN, record(tier="near")).reasons[0]


def test_targets_are_a_searchs_best_times_the_difficulty(record: Record) -> None:
    best = {"speedup": 2.0, "latency_s": 0.4}
    assert required_of(HARD, best) == pytest.approx(2.4)
    assert required_of(SOON, best) == pytest.approx(0.5)
    assert required_of(HARD, None) is None
    assert relative_gate(HARD, record(), 1.9).passed
    assert relative_gate(HARD, record(), 2.4).error == "relative speed"
    assert relative_gate(SOON, record(), 0.5).passed
    assert relative_gate(SOON, record(), 0.4).error == "relative speed"
    assert relative_gate(HARD, record(shares=(0.5,) * 10), 1.0).error == "relative quality"


def test_s_a_counts_what_was_reached_of_a_hard_target_and_nothing_for_lost_quality() -> None:
    first, second = [t for t in tasks() if t.level == 4 and t.target is not None and t.target.difficulty == "hard"][:2]
    verdicts = {
        first.id: {"status": "failed", "error": "relative speed", "required": 2.4, "figures": {"achieved": 0.9}},
        second.id: {"status": "failed", "error": "relative quality", "required": 2.4, "figures": {"achieved": 1.0}},
    }
    found = score([first, second], verdicts)
    assert found.achievement == pytest.approx(0.45)
    assert found.pass_rate == 0.0
    assert dataclasses.asdict(found)["statuses"] == {"failed": 2}
