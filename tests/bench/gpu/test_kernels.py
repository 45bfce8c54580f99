"""The measuring of kernels: every case runs, a failure stays alone, and an earlier run is gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffopt.bench.gpu import kernels
from diffopt.bench.gpu.kernel_cases import Case, cases
from diffopt.bench.gpu.kernel_timing import measured

CPU = ["--device", "cpu", "--small", "--rounds", "2"]


def _case(ours: Callable[..., Any], **given: Any) -> Case:
    def make(generator: torch.Generator) -> tuple[torch.Tensor]:
        return (torch.randn(4, 6, generator=generator),)

    return Case("twice/small", make, ours, lambda x: x * 2, **given)


def _measure(case: Case) -> dict[str, Any]:
    return measured(case, device="cpu", seed=0, rounds=3, in_inductor=False)


def test_there_is_a_case_of_every_kernel_and_each_has_its_own_name() -> None:
    folder = Path(kernels.__file__).resolve().parents[2] / "backends" / "kernels"
    files = {file.stem for file in folder.glob("*.py")} - {"__init__", "launching"}
    names = [case.name for case in cases("cpu", small=True)]
    assert len(set(names)) == len(names)
    measured_kernels = {name.partition("/")[0].replace("-", "_") for name in names}
    named_otherwise = {"group_norm": "group_norm_silu"}
    assert {named_otherwise.get(file, file) for file in files} <= measured_kernels


def test_a_case_says_its_error_its_times_and_how_it_stands_against_the_others() -> None:
    found = _measure(_case(lambda x: x + x))
    assert found["error"] == 0
    assert set(found["median_us"]) == {"eager", "ours"}
    ratio, low, high = found["against"]["eager"]
    assert low <= ratio <= high
    json.dumps(found)


def test_a_wrong_result_is_no_result() -> None:
    with pytest.raises(ValueError, match=r"relative error 0\.5 against float64"):
        _measure(_case(lambda x: x))


def test_an_element_that_is_not_written_is_found() -> None:
    with pytest.raises(ValueError, match="relative error inf"):
        _measure(_case(lambda x: torch.where(x == x.max(), float("nan"), 2 * x)))


def test_an_arm_that_fails_is_told_and_the_others_are_measured() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such instruction")

    found = _measure(_case(lambda x: 2 * x, variants={"odd": broken}))
    assert "no such instruction" in found["failures"]["odd"]
    assert set(found["median_us"]) == {"eager", "ours"}


@pytest.mark.slow
def test_a_run_goes_on_where_an_earlier_one_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "kernels.json"
    assert kernels.main(["--out", str(out), "--only", "guided-step/sdxl-euler", *CPU]) == 0
    first = kernels.read(out)
    assert list(first["cases"]) == ["guided-step/sdxl-euler"]
    assert kernels.main(["--out", str(out), "--only", "guided-step", *CPU]) == 0
    found = kernels.read(out)
    assert found["cases"]["guided-step/sdxl-euler"] == first["cases"]["guided-step/sdxl-euler"]
    assert len(found["cases"]) == 3
    assert found["environment"]["interpreted"] is True
    assert "guided-step/sdxl-multistep" in capsys.readouterr().out


def test_a_kernel_wins_when_the_whole_interval_is_above_one() -> None:
    assert kernels.wins({"against": {"inductor": [1.2, 1.1, 1.3]}}) is True
    assert kernels.wins({"against": {"inductor": [1.2, 0.9, 1.3]}}) is False
    assert kernels.wins({"against": {"eager": [1.2, 1.1, 1.3]}}) is None


def test_a_table_shows_failures_and_what_is_left() -> None:
    found = {"environment": {}, "ceilings": {}, "left": ["b/c"], "cases": {"a/b": {"failed": "Trace\nKeyError: 1"}}}
    assert "failed: KeyError: 1" in kernels.table(found)
    assert "left: ['b/c']" in kernels.table(found)
