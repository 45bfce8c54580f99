"""Searches of DiffBench's baselines: targets, arms and budgets, over measurements that are made up from the code."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffopt.bench.outcome import Failed, Fidelity, Latency, Measured, Memory
from diffopt.bench.statistics import paired_ratio
from diffopt.bench.suite.measuring import Job, Protocol
from diffopt.bench.suite.meter import Meter
from diffopt.bench.suite.page_searches import section
from diffopt.bench.suite.searches import TARGETS, Searches, read_searches, searches_faults, write_searches
from diffopt.bench.suite.store import MeasurementStore
from diffopt.bench.tiers import Thresholds
from diffopt.diffbench.arms import ARMS
from diffopt.diffbench.running import Terms, baselines_of, run_searches
from diffopt.ir.errors import DiffoptError

JUDGING = Protocol(4, aimed_pairs=(3, 3))
SEARCHING = Protocol(4, aimed_pairs=(3, 3), split="search")
TERMS = Terms(JUDGING, SEARCHING, ("ours", "rules", "random"), (1, 5), target_count=5)


class FakeMeter(Meter):
    """Fewer steps are faster, plans a little, two steps lose quality, 16-bit floats fail; what was measured is counted."""

    measured: list[tuple[str, str]] = []

    def _measure(self, job: Job) -> dict[str, Any]:
        self.measured.append((self.protocol.split, job.code))
        if "half_precision" in job.code:
            return {"outcome": Failed("crash", "no").to_json(), "adherence": None}
        steps = int(next(iter(re.findall(r"num_inference_steps=(\d+)", job.code))))
        base, made = (1.0, 1.0, 1.0), (steps / 50 * (0.9 if "follow_step_plan" in job.code else 1.0),) * 3
        raced = paired_ratio(base, made, rng=np.random.default_rng(0))
        shown = 0.7 if steps == 2 else 1.0
        psnr = tuple(float(20 + steps) for _ in range(4))
        fidelity = Fidelity(psnr[0], psnr[0], psnr[0], 1.0, None, None, None, None, 4, (), psnr=psnr)
        tier = Thresholds().tier(fidelity)
        outcome = Measured(
            Latency(raced.ratio, raced.lo, raced.hi, 3, base, made),
            fidelity,
            Memory(1, 1),
            0.0,
            0.0,
            0.0,
            (),
            tier,
        )
        return {"outcome": outcome.to_json(), "adherence": {"baseline": [1.0] * 4, "candidate": [shown] * 4}}


@contextlib.contextmanager
def no_server(work: Path, protocol: Protocol) -> Iterator[Any]:
    yield None


def searched(folder: Path, terms: Terms = TERMS, clock: Any = lambda: 0.0, seconds: float | None = None) -> Searches:
    return run_searches(
        baselines_of(0, 1), MeasurementStore(folder / "store"), terms, work=folder, seconds=seconds, clock=clock,
        server_of=no_server, meter_of=FakeMeter,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_measured() -> None:
    FakeMeter.measured.clear()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Searches:
    return searched(tmp_path_factory.mktemp("searches"))


def test_baselines_are_of_each_family_in_turn() -> None:
    every = baselines_of(0)
    assert len(every) == len(set(every)) >= 11
    first = [one.family for one in every[: len({one.family for one in every})]]
    assert len(set(first)) == len(first)
    assert baselines_of(0, 2) == every[:2]


def test_every_arm_measures_its_budget_and_a_target_is_set(found: Searches) -> None:
    (base,) = found.baselines()
    assert {name: len(runs[base]) for name, runs in found.runs.items()} == {TARGETS: 5, **dict.fromkeys(TERMS.arms, 5)}
    assert found.targets[base]["speedup"] > 1


def test_a_program_is_measured_once_whoever_asks(tmp_path: Path) -> None:
    found = searched(tmp_path)
    assert len(FakeMeter.measured) == len(set(FakeMeter.measured)) == len(found.searched) + len(found.judged)
    asked = [program for runs in found.runs.values() for _, program in next(iter(runs.values()))]
    assert len(found.searched) == len(set(filter(None, asked))) < len(asked)


def test_the_answers_of_an_arm_are_judged_by_the_three_gates(found: Searches) -> None:
    results = found.results("rules", 5)
    assert {task.rpartition("-")[0] for task in results.answers} == {"L4", "L5"}
    statuses = {verdict["status"] for verdict in results.verdicts.values()}
    assert statuses <= {"passed", "failed"}, results.verdicts
    assert all(verdict["static"]["passed"] for verdict in results.verdicts.values())


def test_a_larger_budget_begins_with_the_smaller_one(found: Searches, tmp_path: Path) -> None:
    (base,) = found.baselines()
    more = searched(tmp_path, replace(TERMS, arms=("ours", "random"), budgets=(6,)))
    for arm in ("ours", "random"):
        assert list(more.runs[arm][base][:5]) == list(found.runs[arm][base]), arm


def test_a_run_that_is_cut_short_goes_on_and_measures_nothing_again(found: Searches, tmp_path: Path) -> None:
    first = searched(tmp_path, clock=lambda: float(len(FakeMeter.measured)), seconds=9)
    assert len(FakeMeter.measured) == 9 < len(found.searched) + len(found.judged)
    assert first.targets == found.targets
    again = searched(tmp_path)
    assert len(FakeMeter.measured) == len(set(FakeMeter.measured))
    assert (again.runs, again.targets) == (found.runs, found.targets)


def test_half_a_search_sets_no_target(tmp_path: Path) -> None:
    cut = searched(tmp_path, replace(TERMS, arms=("rules",)), lambda: float(len(FakeMeter.measured)), 4)
    assert cut.targets == {} == cut.baselines()
    assert "| easy |" in section(cut)


def test_searches_are_read_as_they_were_written(found: Searches, tmp_path: Path) -> None:
    path = tmp_path / "searches.json.gz"
    write_searches(path, found)
    again = read_searches(path)
    assert section(again) == section(found)
    assert searches_faults(again) == []
    path.write_bytes(b"{}")
    with pytest.raises(DiffoptError, match="no gzip file"):
        read_searches(path)


def test_forged_searches_are_found(found: Searches) -> None:
    name, record = next(iter(found.searched.items()))
    if record["outcome"]["status"] == "failed":
        name, record = next((n, r) for n, r in found.searched.items() if r["outcome"]["status"] == "measured")
    latency = {**record["outcome"]["latency"], "ratio": 99.0}
    forged = {**record, "outcome": {**record["outcome"], "latency": latency}}
    faults = searches_faults(replace(found, searched={**found.searched, name: forged}))
    assert any("99" in fault for fault in faults)


def test_every_arm_says_who_it_is() -> None:
    assert all(arm.text and arm.name == name for name, arm in ARMS.items())
