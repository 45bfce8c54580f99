"""Programs that crash, hang, fill, forge and cheat: each is a status, and the next program is measured as if nothing
had happened."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from diffopt.bench import teacher
from diffopt.bench.evaluate import Evaluator, Failed, Measured, Program
from diffopt.bench.resident import Died, Resident

PAIRS = (2, 2)
TinyProgram = Callable[..., Program]

WRAPPED = """
_load = load
def load(**options):
    pipe = _load(**options)
    honest = type(pipe).__call__
    class Hostile(type(pipe)):
        calls = 0
        def __call__(self, *args, **kwargs):
            Hostile.calls += 1
            result = honest(self, *args, **kwargs)
{body}
            return result
    pipe.__class__ = Hostile
    return pipe
"""


def wrapped(*lines: str) -> dict[str, str]:
    return {"tail": WRAPPED.format(body="\n".join(" " * 12 + line for line in lines))}


PROGRAMS: dict[str, tuple[str, str, dict[str, str]]] = {
    "exits at import": ("crash", "exited with code 3", {"head": "import os; os._exit(3)"}),
    "exits well at import": ("crash", "exited with code 0", {"head": "import os; os._exit(0)"}),
    "calls sys.exit": ("build", "SystemExit", {"head": "import sys; sys.exit(1)"}),
    "segfaults": ("crash", "SIGSEGV", {"head": "import ctypes; ctypes.string_at(0)"}),
    "kills itself": ("crash", "SIGKILL", {"head": "import os; os.kill(os.getpid(), 9)"}),
    "kills its group": ("crash", "SIGTERM", {"head": "import os; os.killpg(0, 15)"}),
    "raises in load": ("build", "no such layer", {"tail": "def load(**options): raise KeyError('no such layer')"}),
    "has no load": ("build", "load", {"tail": "del load"}),
    "is not Python": ("build", "SyntaxError", {"tail": "def load(:"}),
    "raises in the call": ("crash", "boom", wrapped("raise RuntimeError('boom')")),
    "closes its socket": ("crash", "closed its connection", {"head": "import os; os.close(3); import time; time.sleep(60)"}),
    "forges an answer": ("protocol", "answers no request", {
        "head": "import os; b = b'{\"type\":\"done\",\"id\":\"0\"}'; os.write(3, len(b).to_bytes(4, 'big') + b)"}),
    "writes rubbish": ("protocol", "claims", {"head": "import os; os.write(3, b'\\xff' * 100)"}),
    "writes no JSON": ("protocol", "not JSON", {"head": "import os; os.write(3, b'\\0\\0\\0\\4abcd')"}),
    "forges the hash": ("protocol", "not those that were announced", {
        "head": "import hashlib, types\n"
        "hashlib.sha256 = lambda data=b'': types.SimpleNamespace(hexdigest=lambda: '0' * 64)"}),
    "forges witnesses": ("protocol", "no witnesses", {
        "head": "import diffopt.bench.worker as w\nw._witnesses = lambda pipe: [{'transform': 1}]"}),
    "returns NaN": ("numerics", "NaN", wrapped("result.images[0, 0, 0] = float('nan')")),
    "returns grey": ("numerics", "flat", wrapped("result.images[:] = 0.5")),
    "returns half the picture": ("numerics", "shape", wrapped("result.images = result.images[:, :8]")),
    "returns another picture each time": ("numerics", "second time", wrapped(
        "import numpy as np", "result.images = np.random.rand(*result.images.shape).astype('float32')")),
    "returns the same picture always": ("numerics", "same image", wrapped(
        "Hostile.kept = getattr(Hostile, 'kept', result.images)", "result.images = Hostile.kept")),
    "returns unrelated pictures": ("numerics", "unlike", wrapped(
        "import numpy as np", "result.images = np.ascontiguousarray(1 - result.images[:, ::-1])")),
    "cheats once it is timed": ("protocol", "timed calls", wrapped(
        "if Hostile.calls > 9: result.images = 1 - result.images[:, ::-1]")),
    "is a little worse once it is timed": ("protocol", "in the worst tenth", wrapped(
        "shift = 0.016 if Hostile.calls <= 9 else 0.03",
        "result.images = abs(result.images - shift)")),
}  # fmt: skip


def test_a_control_arm_gets_its_ratio_however_unlike_its_images_are(
    evaluator: Evaluator, tiny_program: TinyProgram
) -> None:
    unlike = tiny_program("control", **PROGRAMS["returns unrelated pictures"][2])
    outcome = evaluator.evaluate(unlike, pairs=PAIRS, any_image=True)
    assert isinstance(outcome, Measured), outcome
    assert outcome.tier == "changed"


@pytest.fixture
def hurried(evaluator: Evaluator) -> Iterator[Evaluator]:
    """The evaluator with a second of patience."""
    usual = evaluator.place.timeout_s
    evaluator.place.timeout_s = 1.0
    yield evaluator
    evaluator.place.timeout_s = usual


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_hostile_program_is_a_status(evaluator: Evaluator, tiny_program: TinyProgram, name: str) -> None:
    kind, message, code = PROGRAMS[name]
    outcome = evaluator.evaluate(tiny_program(name, **code), pairs=PAIRS)
    assert isinstance(outcome, Failed), outcome
    assert outcome.kind == kind, outcome
    assert message in outcome.message, outcome


@pytest.mark.parametrize(
    "code",
    [
        pytest.param({"head": "import ctypes; ctypes.PyDLL(None).pause()"}, id="in C, holding the interpreter lock"),
        pytest.param({"head": "while True: pass"}, id="in Python"),
        pytest.param(
            {"head": "import os\nif os.fork() == 0: os.setpgid(0, 0)\nwhile True: pass"}, id="in two processes"
        ),
    ],
)
def test_a_hang_is_a_timeout_on_time_and_nothing_is_left_running(
    hurried: Evaluator, tiny_program: TinyProgram, code: dict[str, str]
) -> None:
    start = time.monotonic()
    program = tiny_program("hangs", **code)
    outcome = hurried.evaluate(program, pairs=PAIRS)
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.message) == ("timeout", "no answer to load in time")
    assert time.monotonic() - start < 10
    assert still_running(program.hash) == []


def test_a_process_that_left_the_group_is_killed_with_it(evaluator: Evaluator, tiny_program: TinyProgram) -> None:
    head = "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        while True: pass\n    os._exit(0)"
    program = tiny_program("spins aside", head=head)
    assert isinstance(evaluator.evaluate(program, pairs=PAIRS), Measured)
    assert still_running(program.hash) == []


def test_a_program_that_eats_memory_is_killed_at_the_limit(evaluator: Evaluator, tiny_program: TinyProgram) -> None:
    head = "kept = []\nwhile True: kept.append(bytearray(b'x' * (32 << 20)))"
    outcome = evaluator.evaluate(tiny_program("eats memory", head=head), pairs=PAIRS)
    assert isinstance(outcome, Failed)
    assert outcome.kind == "memory"
    assert "the limit is 1024 MiB" in outcome.message


def test_a_hundred_megabytes_of_output_neither_block_nor_fill_anything(
    evaluator: Evaluator, tiny_program: TinyProgram
) -> None:
    head = "import os\nfor _ in range(1600): os.write(1, b'x' * 65536)\nprint('that was all', flush=True)"
    program = tiny_program("prints", head=head)
    assert isinstance(evaluator.evaluate(program, pairs=PAIRS), Measured)
    log = next(evaluator.image_folder.parent.glob(f"candidates/{program.hash}/worker.log"))
    assert log.stat().st_size < 80_000
    assert "that was all" in log.read_text()


def test_temporary_files_go_into_a_programs_own_folder(evaluator: Evaluator, tiny_program: TinyProgram) -> None:
    head = "import os, tempfile\nassert tempfile.mkdtemp().startswith(os.getcwd()), tempfile.gettempdir()"
    assert isinstance(evaluator.evaluate(tiny_program("keeps files", head=head), pairs=PAIRS), Measured)


def test_the_clock_that_counts_is_not_the_programs(evaluator: Evaluator, tiny_program: TinyProgram) -> None:
    tail = (
        "import time\ntime.perf_counter = time.monotonic = time.time = lambda: 0.0\n"
        + wrapped("import ctypes; ctypes.CDLL(None).usleep(100_000)")["tail"]
    )
    outcome = evaluator.evaluate(tiny_program("stops the clock", tail=tail), pairs=PAIRS)
    assert isinstance(outcome, Measured)
    assert min(outcome.latency.candidate_s) > 0.1


@pytest.mark.slow
def test_a_program_that_kills_the_fork_server_does_not_end_the_run(
    evaluator: Evaluator, tiny_program: TinyProgram
) -> None:
    outcome = evaluator.evaluate(
        tiny_program("kills its parent", head="import os; os.kill(os.getppid(), 9)"), pairs=PAIRS
    )
    assert isinstance(outcome, Failed | Measured)
    assert isinstance(evaluator.evaluate(tiny_program("baseline"), pairs=PAIRS), Measured)


def still_running(folder: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and folder in os.readlink(f"/proc/{name}/cwd"):
                found.append(int(name))
        except OSError:
            continue
    return [pid for pid in found if " Z" not in Path(f"/proc/{pid}/stat").read_text()]


def test_links_that_a_program_leaves_lead_nobody_out_of_its_folder(
    evaluator: Evaluator, tiny_program: TinyProgram, tmp_path: Path
) -> None:
    """The parent writes a log, a lesson and the program into a folder that the program may write to; it is not confined."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    names = ("worker.log", "lesson.safetensors", f".pipeline.py.{os.getpid()}")
    lines = [
        f"os.path.lexists({name!r}) and os.unlink({name!r}); os.symlink({str(victim)!r}, {name!r})" for name in names
    ]
    program = tiny_program("links", **wrapped("import os", "print('payload', flush=True)", *lines))
    for _ in range(2):
        evaluator.evaluate(program, pairs=PAIRS)
        assert victim.read_text() == "mine"


def test_a_pipe_in_the_place_of_answers_does_not_hold_up_the_run(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "answers.safetensors")
    with pytest.raises(Died, match="no answers of the denoiser came"):
        teacher._read(cast(Resident, SimpleNamespace(name="a worker")), tmp_path / "answers.safetensors")
