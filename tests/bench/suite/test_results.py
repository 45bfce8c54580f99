"""Files of results, the store, and what becomes of forged reports."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffopt.bench.suite import Task, tasks
from diffopt.bench.suite.arms.rules import answer, baseline
from diffopt.bench.suite.board import add_to_board, read_board
from diffopt.bench.suite.judging import judge_all
from diffopt.bench.suite.measuring import Job, Protocol
from diffopt.bench.suite.page import page
from diffopt.bench.suite.results import Results, pair_name, read_results, text_hash, write_results
from diffopt.bench.suite.store import MeasurementStore
from diffopt.bench.suite.submission import check, check_file, judged_again
from diffopt.ir.errors import DiffoptError

Record = Callable[..., dict[str, Any]]
TASK = next(task for task in tasks() if task.level == 1 and task.family == "sd15" and task.steps == 20)


@pytest.fixture
def results(record: Record) -> Results:
    """Of one task, measured and passed."""
    return results_of(TASK, record())


def results_of(task: Task, measured: dict[str, Any]) -> Results:
    """Make the results of one task."""
    code = answer(task).code
    found = Results(
        "rules", 0, {"devices": [{"name": "a processor"}], "versions": {}},
        {"prompts": 10, "pairs": [3, 3], "aimed_pairs": [8, 16], "seed": 0},
        programs={text_hash(text): text for text in (code, baseline(task))},
        measurements={pair_name(task.family, baseline(task), code): measured},
        answers={task.id: {"program": text_hash(code)}},
    )  # fmt: skip
    return found.with_verdicts(judge_all([task], found))


def test_results_are_read_as_they_were_written(results: Results, tmp_path: Path) -> None:
    for name in ("a.json", "a.json.gz"):
        write_results(tmp_path / name, results)
        assert read_results(tmp_path / name).verdicts == results.verdicts
        first = (tmp_path / name).read_bytes()
        write_results(tmp_path / name, read_results(tmp_path / name))
        assert (tmp_path / name).read_bytes() == first


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "diffbench-results", "version": 9}', "\x00"])
def test_what_are_no_results_is_said_in_one_line(tmp_path: Path, text: str) -> None:
    for name in ("a.json", "a.json.gz"):
        (tmp_path / name).write_text(text)
        with pytest.raises(DiffoptError, match=name):
            read_results(tmp_path / name)


def test_honest_results_are_accepted_and_entered_once(results: Results, tmp_path: Path) -> None:
    assert results.verdicts[TASK.id]["status"] == "passed"
    assert check_file(results) == []
    write_results(tmp_path / "a.json", results)
    for _ in range(2):
        add_to_board(tmp_path / "board.json", tmp_path / "a.json", results, ["L1-001"])
    (entry,) = read_board(tmp_path / "board.json")
    assert entry["levels"]["1"]["S_p"] == 1.0
    assert "a processor" in page([results])


def forged_verdict(results: Results) -> Results:
    measurements = copy.deepcopy(dict(results.measurements))
    outcome = next(iter(measurements.values()))["outcome"]
    outcome["tier"], outcome["fidelity"]["denoiser_error"] = "near", 0.5
    return dataclasses.replace(results, measurements=measurements)


def forged_ratio(results: Results) -> Results:
    measurements = copy.deepcopy(dict(results.measurements))
    next(iter(measurements.values()))["outcome"]["latency"]["ratio"] = 9.0
    return dataclasses.replace(results, measurements=measurements)


def forged_tier(results: Results) -> Results:
    measurements = copy.deepcopy(dict(results.measurements))
    next(iter(measurements.values()))["outcome"]["fidelity"]["denoiser_error"] = 0.5
    return dataclasses.replace(results, measurements=measurements)


def times_without_end(results: Results) -> Results:
    measurements = copy.deepcopy(dict(results.measurements))
    latency = next(iter(measurements.values()))["outcome"]["latency"]
    latency["baseline_s"], latency["candidate_s"] = [math.inf] * 3, [math.inf] * 3
    return dataclasses.replace(results, measurements=measurements)


def outcome_of_another_kind(results: Results) -> Results:
    name = next(iter(results.measurements))
    return dataclasses.replace(results, measurements={name: {**results.measurements[name], "outcome": []}})


def targets_of_its_own(results: Results) -> Results:
    easy = {"speedup": 0.001, "latency_s": 1e6}
    return dataclasses.replace(results, targets={text_hash(baseline(TASK)): easy})


def terms_of_its_own(results: Results) -> Results:
    return dataclasses.replace(results, protocol={**results.protocol, "prompts": 1, "pairs": [1, 1]})


def no_machine(results: Results) -> Results:
    return dataclasses.replace(results, machine={"devices": [None], "versions": {}})


def forged_accuracy(results: Results) -> Results:
    measurements = copy.deepcopy(dict(results.measurements))
    next(iter(measurements.values()))["adherence"]["candidate"] = [0.5] * 10
    return dataclasses.replace(results, measurements=measurements)


def other_code(results: Results) -> Results:
    code = answer(TASK).code
    return dataclasses.replace(results, programs={**results.programs, text_hash(code): code + "# faster"})


def fewer_images(results: Results) -> Results:
    return dataclasses.replace(results, protocol={**results.protocol, "prompts": 100})


def passed_without_a_measurement(results: Results) -> Results:
    return dataclasses.replace(results, measurements={})


def task_of_another_suite(results: Results) -> Results:
    return dataclasses.replace(results, answers={**results.answers, "L9-001": {"refused": "never heard of"}})


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (forged_verdict, "is said to be 'passed', but its code and samples give 'failed'"),
        (forged_ratio, "the ratio is 9.000, its samples give 2.0"),
        (forged_tier, "is said to be `exact`, its figures give `near`"),
        (times_without_end, "every time must be positive and finite"),
        (outcome_of_another_kind, "it cannot be read"),
        (targets_of_its_own, "targets of its own"),
        (terms_of_its_own, "protocol must be of 4 to 1000 prompts"),
        (no_machine, "on what device"),
        (forged_accuracy, "0.90 of prompts are said to be right, the shares allow 0.00"),
        (other_code, "is another text than its name says"),
        (fewer_images, "it is of 10 images, the protocol says 100"),
        (passed_without_a_measurement, "but its code and samples give 'not measured'"),
        (task_of_another_suite, "'L9-001' is no task"),
    ],
)
def test_a_forged_report_is_refused(results: Results, forge: Callable[[Results], Results], reason: str) -> None:
    assert any(reason in fault for fault in check_file(forge(results))), check_file(forge(results))


def test_figures_that_are_shown_are_judged_again_and_not_those_that_were_handed_in(results: Results) -> None:
    verdict = dict(results.verdicts[TASK.id])
    forged = results.with_verdicts({TASK.id: {**verdict, "figures": {**verdict["figures"], "speedup": [99.0] * 3}}})
    faults, again = judged_again(forged)
    assert faults == []
    assert again.verdicts[TASK.id]["figures"]["speedup"][0] == pytest.approx(2.0)


def test_files_that_are_damaged_endless_or_hold_no_numbers_are_refused(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json.gz"
    write_results(path, results)
    whole = path.read_bytes()
    text = gzip.decompress(whole).decode()
    changed = [text.replace('"ratio":2.', f'"ratio":{value},"x":0.', 1) for value in ("NaN", "1e999", "9" * 400)]
    assert text not in changed
    damaged = whole[:60] + bytes(255 - byte for byte in whole[60:80]) + whole[80:]
    for data in (damaged, whole[:-20], *(gzip.compress(part.encode()) for part in changed)):
        path.write_bytes(data)
        with pytest.raises(DiffoptError, match=r"a\.json\.gz"):
            read_results(path)
    monkeypatch.setattr("diffopt.bench.suite.results.LARGEST", 1000)
    path.write_bytes(whole)
    with pytest.raises(DiffoptError, match="results of more than"):
        read_results(path)


def test_two_who_write_to_one_store_lose_nothing(tmp_path: Path) -> None:
    one, other = MeasurementStore(tmp_path / "s"), MeasurementStore(tmp_path / "s")
    one.add("a", {"value": 1})
    other.add("b", {"value": 2})
    one.add("c", {"value": 3})
    assert {key: MeasurementStore(tmp_path / "s").get(key) for key in "abc"} == {
        "a": {"value": 1}, "b": {"value": 2}, "c": {"value": 3},
    }  # fmt: skip


AIMED = next(t for t in tasks() if t.level == 4 and t.family == "sd15")


@pytest.mark.parametrize(
    ("task", "again", "fault"),
    [
        (TASK, {}, ""),
        (TASK, {"tier": "changed"}, "does not pass when it is measured again: nothing was to be changed"),
        (TASK, {"shares": (0.1,) * 10}, "does not pass when it is measured again: 10 % of what prompts ask"),
        (AIMED, {"times": (0.6,) * 3}, ""),
        (AIMED, {"times": (0.9,) * 3}, "reaches 0.56 of its claimed speed when it is measured again"),
    ],
)
def test_a_sample_is_measured_again(
    record: Record, tmp_path: Path, task: Task, again: dict[str, Any], fault: str
) -> None:
    code, protocol = answer(task).code, Protocol()
    found = results_of(task, record(steps=20 if task.level == 1 else 10))
    # What is measured again comes from a store that is filled already.
    job = Job(task.family, baseline(task), code, task.level > 3)
    MeasurementStore(tmp_path / "again.jsonl").add(job.key(protocol), record(**again))
    checked = check(found, work=tmp_path, sample=3, seed=0, protocol=protocol)
    assert checked.measured_again == (task.id,)
    assert checked.accepted == (not fault)
    assert all(fault in said for said in checked.faults), checked.faults


def test_a_store_that_was_killed_while_it_wrote_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "store.jsonl"
    store = MeasurementStore(path)
    store.add("a", {"value": 1})
    store.add("b", {"value": 2})
    path.write_bytes(path.read_bytes()[:-7])
    again = MeasurementStore(path)
    assert (again.get("a"), again.get("b")) == ({"value": 1}, None)
    again.add("c", {"value": 3})
    assert MeasurementStore(path).get("c") == {"value": 3}
    assert len(MeasurementStore(path)) == 2


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("hello\n")
    with pytest.raises(DiffoptError, match="s:1: no measurement of DiffBench"):
        MeasurementStore(tmp_path / "s")
