from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.evaluate import Evaluator
from diffopt.bench.outcome import Failed, Measured, outcome_from_json
from diffopt.bench.workload import Workload
from diffopt.cli import main
from diffopt.cluster import measure, payload, settings_for
from diffopt.ir.dialect import components
from diffopt.ir.errors import DiffoptError
from diffopt.search.executors.supervisor import Supervisor
from diffopt.search.records import Candidate
from diffopt.session import model_hash, program
from diffopt.sources import lift


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--executor", "ray"], "--executor ray: Ray is not installed"),
        (["--executor", "ray", "--workers", "0"], "--workers: must be at least 1"),
        (["--workers", "2"], "--workers: is of a Ray cluster"),
        (["--ray-address", "h:1"], "--ray-address: is of a Ray cluster"),
    ],
)
def test_what_cannot_be_spread_is_one_line_and_leaves_nothing(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    assert main(["compile", "demo:shapes", "-o", str(tmp_path / "out"), *options]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert said in errors[0]
    assert list(tmp_path.iterdir()) == []


def told(module: ModuleOp, folder: Path) -> dict[str, Any]:
    """Return what supervisors of a search on a module are told."""
    model = Path(str(components(module)["pipeline"].values["model"]))
    work = Workload(("a cat", "a dog"), ("snow",), 0, 48, 64)
    evaluator = Evaluator(program(module, "baseline"), work, work=folder / "work", engines=folder / "engines")
    found = settings_for(
        evaluator, target="cpu", builtin="", model=model, weights=model_hash(model), folder=folder, seed=0
    )
    evaluator.__exit__()
    return dict(json.loads(json.dumps(found)))


@pytest.fixture(scope="module")
def tiny(tiny_directory: Path) -> ModuleOp:
    return lift(tiny_directory, {"steps": "4", "guidance": "3"}).module


def test_another_machine_or_model_is_refused_in_one_line(tiny: ModuleOp, tmp_path: Path) -> None:
    settings = told(tiny, tmp_path)
    other = {**settings, "machine": {**settings["machine"], "device": "another processor"}}
    with pytest.raises(DiffoptError, match=r"has device .*, the driver another processor"):
        measure(other)
    with pytest.raises(DiffoptError, match="the model is another on"):
        measure({**settings, "weights": "0"})
    with pytest.raises(DiffoptError, match="the model is not there on"):
        measure({**settings, "model": str(tmp_path / "gone")})


@pytest.mark.slow
def test_a_supervisor_measures_what_it_is_told_in_text(
    tiny: ModuleOp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[Evaluator] = []
    enter = Evaluator.__enter__

    def remembered(evaluator: Evaluator) -> Evaluator:
        entered.append(evaluator)
        return enter(evaluator)

    # A supervisor's evaluator ends with its process; this process goes on.
    monkeypatch.setattr(Evaluator, "__enter__", remembered)
    supervisor = Supervisor("diffopt.cluster:measure", json.dumps(told(tiny, tmp_path)), str(tmp_path), "cpu")
    asked = payload(Candidate(1, "reduce-steps{steps=2}", "k", "rules"), tiny)
    outcome = outcome_from_json(json.loads(supervisor.measure(json.dumps(asked))))
    assert isinstance(outcome, Measured), outcome
    assert outcome.latency.ratio > 0
    failed = {"failed": Failed("build", "no code").to_json()}
    again = outcome_from_json(json.loads(supervisor.measure(json.dumps(failed))))
    assert getattr(again, "message", "") == "no code"
    for evaluator in entered:
        evaluator.__exit__()
