"""From bad images to the pass, the step and the layer, with the real worker and a tiny model."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffopt.bench.evaluate import Evaluator
from diffopt.bench.workload import DEFAULT_PROMPTS, Workload
from diffopt.bisection import Fault, fault_lines, find_fault, write_reproducer
from diffopt.ir.errors import DiffoptError
from diffopt.passes.pipeline import Trace
from diffopt.session import program
from diffopt.sources import Source, lift

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tiny_directory: Path) -> Source:
    """A tiny pipeline at 6 steps."""
    return lift(str(tiny_directory), {"steps": "6", "guidance": "3"})


@pytest.fixture(scope="module")
def evaluator(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluator]:
    """An evaluator of its baseline on three prompts."""
    work = tmp_path_factory.mktemp("bisect")
    workload = Workload(DEFAULT_PROMPTS[:3], DEFAULT_PROMPTS[3:5], seed=0, height=48, width=64)
    baseline = program(source.module, "baseline")
    with Evaluator(baseline, workload, work=work, engines=work / "engines", threads=1) as running:
        yield running


@pytest.fixture(scope="module")
def fault(evaluator: Evaluator, source: Source) -> Fault:
    """What bisecting a trace with one bad pass finds."""
    trace = Trace.parse("channels-last,fuse-qkv,reduce-steps{steps=2},constant-embeddings,vae-channels-last")
    return find_fault(evaluator, source.module, trace, floor_db=60.0)


def test_the_bad_pass_is_named_in_few_measurements_with_the_step_where_it_begins(fault: Fault) -> None:
    assert fault.passes.startswith("reduce-steps")
    assert "," not in fault.passes
    assert fault.measured < 8
    assert fault.step is not None
    assert any("at fault: reduce-steps" in line for line in fault_lines(fault))


def test_the_reproducer_shows_it_by_itself(
    fault: Fault, source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_reproducer(tmp_path / "found", fault, source.module)
    runpy.run_path(str(folder / "reproduce.py"))
    assert "dB between before.py and after.py" in capsys.readouterr().out
    with pytest.raises(DiffoptError, match="cannot be written"):
        write_reproducer(folder, fault, source.module)


def test_good_passes_are_not_blamed(evaluator: Evaluator, source: Source) -> None:
    found = find_fault(evaluator, source.module, Trace.parse("channels-last"), floor_db=60.0)
    assert (found.passes, found.measured) == ("", 1)


def test_a_wrong_precision_is_traced_to_a_layer(evaluator: Evaluator, source: Source) -> None:
    found = find_fault(evaluator, source.module, Trace.parse("half-precision{dtype=bfloat16}"), floor_db=110.0)
    assert found.step == 0
    assert found.layer is not None
