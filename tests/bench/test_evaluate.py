from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from diffopt.bench import memory
from diffopt.bench.confinement import landlock_version
from diffopt.bench.evaluate import Evaluator, Failed, Measured, Program, outcome_from_json
from diffopt.bench.forkserver import ForkServer
from diffopt.bench.resident import Images
from diffopt.bench.workload import Workload
from diffopt.ir.errors import DiffoptError

PAIRS = (2, 2)
TinyProgram = Callable[..., Program]


def measured(evaluator: Evaluator, program: Program) -> Measured:
    outcome = evaluator.evaluate(program, pairs=PAIRS)
    assert isinstance(outcome, Measured), outcome
    return outcome


def test_the_baseline_against_itself_is_exact_to_the_bit(evaluator: Evaluator, tiny_program: TinyProgram) -> None:
    found = measured(evaluator, tiny_program("baseline"))
    assert found.tier == "exact"
    assert found.fidelity.psnr_worst == 120.0
    assert found.deterministic
    assert found.latency.pairs == len(found.latency.baseline_s) == len(found.latency.candidate_s) == 2
    assert found.memory.peak_bytes > 100 << 20
    assert found.environment["threads"] == 1
    assert outcome_from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_program_with_fewer_steps_is_faster_and_no_longer_exact(
    evaluator: Evaluator, tiny_program: TinyProgram
) -> None:
    found = measured(evaluator, tiny_program("two steps", steps=2))
    assert found.tier != "exact"
    assert found.fidelity.seed_psnr_median is not None
    assert found.fidelity.seed_psnr_median < found.fidelity.psnr_median < 120


def test_a_heldout_evaluation_writes_its_images(evaluator: Evaluator, tiny_program: TinyProgram) -> None:
    program = tiny_program("two steps", steps=2)
    assert isinstance(evaluator.evaluate(program, split="heldout", pairs=PAIRS), Measured)
    folder = evaluator.images_of(program)
    entries = json.loads((folder / "images.json").read_text())["images"]
    assert [entry["prompt"] for entry in entries] == list(evaluator.workload.heldout)
    assert all((folder / entry[side]).exists() for entry in entries for side in ("baseline", "candidate"))


def test_the_self_test_says_how_finely_this_machine_can_tell(evaluator: Evaluator) -> None:
    found = evaluator.self_test(pairs=(5, 5))
    assert found.half_width > 0
    assert found.lo <= found.ratio <= found.hi


def test_transforms_that_did_nothing_are_named(evaluator: Evaluator, tiny_program: TinyProgram) -> None:
    tail = """
import dataclasses, diffopt.backends.runtime as runtime
@dataclasses.dataclass
class Seen:
    transform: str
    count: int
    detail: str
runtime.witnesses = lambda pipe: [Seen("cache-features", 0, "no step cached"), Seen("quantize", 7, "7 layers")]
"""
    found = measured(evaluator, tiny_program("inactive", tail=tail))
    assert found.inactive == ("cache-features",)
    assert found.witnesses[1] == {"transform": "quantize", "count": 7, "detail": "7 layers"}


def test_the_child_sees_no_secret_and_not_the_folder_it_was_started_from(
    evaluator: Evaluator, tiny_program: TinyProgram
) -> None:
    head = """
import os, sys
assert "SOME_API_KEY" not in os.environ and not any("KEY" in name for name in os.environ), "a secret"
environ = open("/proc/self/environ").read()
assert "sesame" not in environ
assert "" not in sys.path and os.getcwd() not in sys.path, sys.path
assert os.environ["HOME"] == os.getcwd()
try:
    import llm
except ImportError:
    pass
else:
    raise AssertionError("the repository is on the path")
"""
    measured(evaluator, tiny_program("nosy", head=head))


def test_a_baseline_worker_that_is_killed_is_started_again(
    evaluator: Evaluator, tiny_program: TinyProgram, server: ForkServer
) -> None:
    assert server.pid is not None
    for worker in memory.descendants(server.pid, memory.parents()) - {server.pid}:
        os.kill(worker, signal.SIGKILL)
    measured(evaluator, tiny_program("after a loss"))


def test_a_program_can_neither_kill_nor_read_the_others(evaluator: Evaluator, tiny_program: TinyProgram) -> None:
    head = """
import os
for name in os.listdir("/proc"):
    if not name.isdigit() or int(name) == os.getpid():
        continue
    for attempt in (lambda: os.kill(int(name), 0), lambda: open(f"/proc/{name}/environ").read(1)):
        try:
            attempt()
        except (PermissionError, ProcessLookupError, FileNotFoundError):
            continue
        raise AssertionError(f"reached {name}")
"""
    measured(evaluator, tiny_program("killer of siblings", head=head))


class Bright:
    def correct(self, images: Images, prompts: Sequence[str]) -> npt.NDArray[np.bool_]:
        return np.asarray(images.mean(axis=(1, 2, 3)) > 0)

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        return np.asarray(images.mean(axis=(1, 2)), dtype=np.float32)


@pytest.mark.slow
def test_a_second_evaluator_on_the_same_folder_reuses_images_scores_them_and_fills_batches(
    tmp_path: Path, tiny_program: TinyProgram, server: ForkServer
) -> None:
    workload = Workload(("a cat", "a dog", "a fish"), ("a bird",), seed=0, height=16, width=16, batch=2)
    stages: list[str] = []
    for _ in range(2):
        stages.clear()
        with Evaluator(
            tiny_program("baseline"), workload, work=tmp_path, engines=tmp_path / "engines", scorer=Bright(), server=server,
            progress=lambda stage, done, total: stages.append(stage),
        ) as evaluator:  # fmt: skip
            found = measured(evaluator, tiny_program("two steps", steps=2))
    assert "reference images" not in stages
    assert found.fidelity.prompt_accuracy == found.fidelity.baseline_prompt_accuracy == 1.0
    assert found.fidelity.seed_distance is not None
    assert found.fidelity.images == 3


@pytest.mark.slow
def test_a_baseline_that_does_not_run_is_the_users_error(
    tmp_path: Path, tiny_program: TinyProgram, server: ForkServer
) -> None:
    workload = Workload(("a cat",), ("a bird",), seed=0, height=16, width=16)
    broken = tiny_program("mine.py", head="raise RuntimeError('no such weights')")
    with (
        pytest.raises(DiffoptError, match=r"mine\.py: the pipeline does not run here .*no such weights"),
        Evaluator(broken, workload, work=tmp_path, engines=tmp_path / "engines", server=server),
    ):
        pass


def test_the_parent_measures_without_importing_torch() -> None:
    code = "import sys, diffopt.bench.evaluate; assert not {'torch', 'diffusers', 'xdsl'} & set(sys.modules)"
    subprocess.run([sys.executable, "-I", "-c", code], check=True)


def test_a_failure_is_json(evaluator: Evaluator, tiny_program: TinyProgram) -> None:
    outcome = evaluator.evaluate(tiny_program("broken", head="raise ValueError('no\\nsuch option')"), pairs=PAIRS)
    assert isinstance(outcome, Failed)
    assert outcome.message == "ValueError: no such option (in load)"
    assert "pipeline.py" in outcome.log
    assert outcome_from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


def test_a_full_disk_ends_the_run_with_one_line(
    evaluator: Evaluator, tiny_program: TinyProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffopt.bench.faults.disk_is_full", lambda folder: True)
    head = "import errno; raise OSError(errno.ENOSPC, 'No space left on device', 'engine.bin')"
    with pytest.raises(DiffoptError, match=r"engines: the disk is full; free some space, then resume"):
        evaluator.evaluate(tiny_program("writes an engine", head=head), pairs=PAIRS)


@pytest.mark.slow
def test_a_baseline_that_needs_what_is_walled_off_runs_without_walls_and_it_is_told(
    tmp_path: Path, tiny_program: TinyProgram, server: ForkServer
) -> None:
    place = tmp_path / "elsewhere"
    head = f"open({str(place)!r}, 'a').write('x')"
    workload = Workload(("a cat", "a dog"), ("a bird",), seed=0, height=16, width=16)
    with Evaluator(
        tiny_program("baseline", head=head),
        workload,
        work=tmp_path / "work",
        engines=tmp_path / "engines",
        server=server,
    ) as evaluator:
        outcome = evaluator.evaluate(tiny_program("plain"), pairs=PAIRS)
    assert isinstance(outcome, Measured), outcome
    assert outcome.environment["guards"] == ["limits"]


COMPILES = """
_load = load
def load(**options):
    import torch
    pipe = _load(**options)
    pipe.vae.post_quant_conv = torch.compile(torch.nn.Sequential(pipe.vae.post_quant_conv, torch.nn.Hardtanh(-1e6, 1e6)))
    return pipe
"""


@pytest.mark.slow
def test_a_program_may_compile_code_within_the_walls(
    evaluator: Evaluator, tiny_program: TinyProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator.place, "memory_limit", 4 << 30)  # inductor starts processes of its own
    monkeypatch.setattr(evaluator.place, "timeout_s", 280.0)  # and takes its time on a busy machine
    found = measured(evaluator, tiny_program("compiles", tail=COMPILES))
    assert "files" in str(found.environment["guards"]) or not landlock_version()
    assert any((evaluator.place.engines / "inductor").rglob("*.so"))
