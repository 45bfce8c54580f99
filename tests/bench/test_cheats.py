"""Programs that want to look better than they are: each is refused, or measured as what it is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffopt.bench.confinement import landlock_version
from diffopt.bench.evaluate import Evaluator, Failed, Measured, Program
from diffopt.bench.tiers import TIERS
from diffopt.search.store import Store

PAIRS = (2, 2)
TinyProgram = Callable[..., Program]

CALL = """
_load = load
def load(**options):
    pipe = _load(**options)
    honest = type(pipe).__call__
    class Cheat(type(pipe)):
        calls = 0
        kept = {{}}
        def __call__(self, prompt, **kwargs):
            import time
            Cheat.calls += 1
{body}
    pipe.__class__ = Cheat
    return pipe
"""
AROUND = """
_load = load
def load(**options):
    pipe = _load(**options)
{body}
    return pipe
"""


def in_call(*lines: str) -> dict[str, str]:
    return {"tail": CALL.format(body="\n".join(" " * 12 + line for line in lines))}


def in_load(*lines: str) -> dict[str, str]:
    return {"tail": AROUND.format(body="\n".join(" " * 4 + line for line in lines))}


HONEST = "result = honest(self, prompt, **kwargs)"

REFUSED: dict[str, tuple[str, str, dict[str, str]]] = {
    "looks where the reference images are": ("build", "PermissionError", {
        "head": "import os\nos.listdir(os.path.dirname(os.path.dirname(os.getcwd())))"}),
    "reads what another program left": ("build", "PermissionError", {
        "head": "import os\nos.listdir(os.path.join(os.path.dirname(os.path.dirname(os.getcwd())), 'baseline'))"}),
    "writes beside its folder, where a store could be": ("build", "PermissionError", {
        "head": "open('../../store.sqlite', 'wb')"}),
    "opens a connection": ("build", "PermissionError", {
        "head": "import socket; socket.create_connection(('127.0.0.1', 9), 1)"}),
    "patches the writer of its answers": ("protocol", "answers no request", in_load(
        "import json", "json.dumps = lambda *a, **k: '{}'")),
    "gives the prompt of the first call to every call": ("numerics", "", in_call(
        "self.kept.setdefault('images', honest(self, prompt, **kwargs).images)",
        HONEST, "result.images = self.kept['images']", "return result")),
    "draws noise instead of a picture": ("numerics", "second time", in_call(
        HONEST, "import numpy as np", "result.images = np.random.default_rng().random(result.images.shape, 'f4')",
        "return result")),
    "leaves memory as it finds it": ("numerics", "", in_call(
        HONEST, "import numpy as np", "result.images = np.full_like(result.images, 0.25)", "return result")),
    "is worse in every third call": ("protocol", "", in_call(
        HONEST, "if self.calls > 9 or self.calls % 3 == 5: result.images = result.images[:, ::-1]", "return result")),
    "gives fewer images than asked": ("protocol", "images of shape", in_call(
        HONEST, "result.images = result.images[:0]", "return result")),
    "gives values beyond white": ("numerics", "values from", in_call(
        HONEST, "result.images = result.images * 3", "return result")),
    "ends its worker once it is timed": ("crash", "exited with code 0", in_call(
        HONEST, "import os", "if self.calls > 9: os._exit(0)", "return result")),
}  # fmt: skip

WEAKER: dict[str, tuple[str, dict[str, str]]] = {
    "blurs": ("near", in_call(
        HONEST, "import numpy as np", "i = result.images",
        "result.images = (i + np.roll(i, 1, 1) + np.roll(i, 1, 2) + np.roll(i, (1, 1), (1, 2))) / 4", "return result")),
    "computes half the size and doubles it": ("near", in_call(
        HONEST, "i = result.images[:, ::2, ::2]", "result.images = i.repeat(2, 1).repeat(2, 2)", "return result")),
    "sharpens": ("near", in_call(
        HONEST, "import numpy as np", "i = result.images",
        "result.images = np.clip(i + 0.5 * (i - np.roll(i, 1, 1)), 0, 1)", "return result")),
    "gives the same seed to every call": ("traded", in_call(
        "import torch", "kwargs['generator'] = torch.Generator().manual_seed(3)", HONEST, "return result")),
    "takes fewer steps than it says": ("exact", in_call(
        "kwargs['num_inference_steps'] = 2", HONEST, "return result")),
    "cuts the prompt short": ("exact", in_call(
        "result = honest(self, prompt[:2], **kwargs)", "return result")),
    "guides less than it says": ("exact", in_call(
        "kwargs['guidance_scale'] = 1.5", HONEST, "return result")),
    "computes in half precision and does not say so": ("exact", in_load(
        "import torch", "forward, weights = pipe.unet.forward, pipe.unet.bfloat16()",
        "def half(sample, step, *a, **k):",
        "    k = {n: v.bfloat16() if isinstance(v, torch.Tensor) else v for n, v in k.items()}",
        "    return (forward(sample.bfloat16(), step, *a, **k)[0].float(),)",
        "pipe.unet.forward = half")),
    "skips the denoiser in the last step": ("exact", in_load(
        "forward, n = pipe.unet.forward, [0]",
        "def skipping(sample, *a, **k):",
        "    n[0] += 1",
        "    return (0 * sample,) if n[0] % 3 == 0 else forward(sample, *a, **k)",
        "pipe.unet.forward = skipping")),
    "gives the last answer of the denoiser again": ("exact", in_load(
        "forward, n, kept = pipe.unet.forward, [0], [None]",
        "def stale(sample, *a, **k):",
        "    n[0] += 1",
        "    if n[0] % 3 == 2: return kept[0]",
        "    kept[0] = forward(sample, *a, **k)",
        "    return kept[0]",
        "pipe.unet.forward = stale")),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_cheat_is_refused(evaluator: Evaluator, tiny_program: TinyProgram, name: str) -> None:
    kind, message, code = REFUSED[name]
    if message == "PermissionError" and landlock_version() < 4:
        pytest.skip("this kernel has no Landlock, or an old one")
    outcome = evaluator.evaluate(tiny_program(name, **code), pairs=PAIRS)
    assert isinstance(outcome, Failed), outcome
    assert outcome.kind == kind, outcome
    assert message in outcome.message, outcome


@pytest.mark.parametrize("name", WEAKER)
def test_a_cheat_loses_the_tier_it_claims(evaluator: Evaluator, tiny_program: TinyProgram, name: str) -> None:
    claimed, code = WEAKER[name]
    outcome = evaluator.evaluate(tiny_program(name, **code), pairs=PAIRS, any_image=True)
    assert isinstance(outcome, Measured), outcome
    assert TIERS.index(outcome.tier) > TIERS.index(claimed), outcome


def measured(evaluator: Evaluator, program: Program) -> Measured:
    outcome = evaluator.evaluate(program, pairs=PAIRS)
    assert isinstance(outcome, Measured), outcome
    return outcome


def test_answers_kept_by_prompt_and_seed_are_of_no_use(evaluator: Evaluator, tiny_program: TinyProgram) -> None:
    cache = in_call(
        "key = prompt, kwargs['generator'].initial_seed()",
        "if key not in self.kept:",
        "    time.sleep(0.1)",
        "    self.kept[key] = honest(self, prompt, **kwargs)",
        "return self.kept[key]",
    )
    assert min(measured(evaluator, tiny_program("remembers", **cache)).latency.candidate_s) > 0.1


def test_work_moved_to_the_load_is_reported_as_build(evaluator: Evaluator, tiny_program: TinyProgram) -> None:
    found = measured(evaluator, tiny_program("works ahead", **in_load("import time", "time.sleep(1.0)")))
    assert found.load_s > 1.0


def test_work_moved_to_the_first_call_is_reported_as_first_call(
    evaluator: Evaluator, tiny_program: TinyProgram
) -> None:
    code = in_call("time.sleep(1.0 if self.calls == 1 else 0.0)", HONEST, "return result")
    found = measured(evaluator, tiny_program("works at first", **code))
    assert found.first_call_s > 1.0 > max(found.latency.candidate_s)


def test_images_that_are_computed_only_when_they_are_looked_at_are_waited_for(
    evaluator: Evaluator, tiny_program: TinyProgram
) -> None:
    code = in_call(
        HONEST,
        "class Later:",
        "    def __array__(self, dtype=None, copy=None):",
        "        time.sleep(0.1)",
        "        return images",
        "images, result.images = result.images, Later()",
        "return result",
    )
    assert min(measured(evaluator, tiny_program("promises", **code)).latency.candidate_s) > 0.1


def test_patched_clocks_and_a_patched_synchronize_change_nothing(
    evaluator: Evaluator, tiny_program: TinyProgram
) -> None:
    code = in_load(
        "import time, torch, ctypes",
        "time.perf_counter = time.perf_counter_ns = time.monotonic = time.time = lambda: 0",
        "torch.cuda.synchronize = torch.cpu.synchronize = lambda *a: None",
        "decode = pipe.vae.decode",
        "pipe.vae.decode = lambda *a, **k: (ctypes.CDLL(None).usleep(100_000), decode(*a, **k))[1]",
    )
    assert min(measured(evaluator, tiny_program("stops all clocks", **code)).latency.candidate_s) > 0.1


def test_a_transform_that_falls_back_in_silence_is_named(evaluator: Evaluator, tiny_program: TinyProgram) -> None:
    told = "[{'transform': 'export', 'count': 0, 'detail': 'unet: 0 engine calls, 9 in torch'}]"
    code = in_load("import diffopt.bench.worker as worker", f"worker._witnesses = lambda pipe: {told}")
    assert measured(evaluator, tiny_program("falls back", **code)).inactive == ("export",)


def test_memory_moved_to_another_process_is_counted(evaluator: Evaluator, tiny_program: TinyProgram) -> None:
    head = "import os, time\nif os.fork() == 0:\n    kept = b'x' * (100 << 20)\n    time.sleep(600)"
    found = measured(evaluator, tiny_program("hides memory", head=head)).memory
    assert found.peak_bytes > found.baseline_peak_bytes + (90 << 20)


def test_work_that_goes_on_while_the_baseline_is_timed_is_refused(
    evaluator: Evaluator, tiny_program: TinyProgram
) -> None:
    head = """
import os
if os.fork() == 0:
    while True:
        if os.fork():
            os._exit(0)
        os.setsid()
        sum(range(20_000))
"""
    outcome = evaluator.evaluate(tiny_program("a chain of processes", head=head), pairs=(12, 12))
    assert isinstance(outcome, Failed), outcome
    assert outcome.kind == "protocol"
    assert "while the baseline was timed" in outcome.message


@pytest.fixture
def small_disk(evaluator: Evaluator) -> Iterator[Evaluator]:
    """The evaluator with 64 MB for a program's files."""
    evaluator.place.disk_limit = 64 << 20
    yield evaluator
    evaluator.place.disk_limit = None


def test_a_program_that_fills_the_disk_is_stopped_and_its_files_are_gone(
    small_disk: Evaluator, tiny_program: TinyProgram
) -> None:
    head = "import time\nfor n in range(20): open(f'{n}.bin', 'wb').write(bytes(16 << 20))\ntime.sleep(30)"
    program = tiny_program("fills", head=head)
    outcome = small_disk.evaluate(program, pairs=PAIRS)
    assert isinstance(outcome, Failed)
    assert (outcome.kind, "the limit is 64 MiB" in outcome.message) == ("disk", True)
    folder = small_disk.image_folder.parent / "candidates" / program.hash
    assert sorted(os.listdir(folder)) == ["pipeline.py", "worker.log"]


def test_an_answer_after_the_deadline_does_not_count(evaluator: Evaluator, tiny_program: TinyProgram) -> None:
    usual, evaluator.place.timeout_s = evaluator.place.timeout_s, 2.0
    start = time.monotonic()
    try:
        outcome = evaluator.evaluate(
            tiny_program("late", **in_call("time.sleep(4.0)", HONEST, "return result")), pairs=PAIRS
        )
    finally:
        evaluator.place.timeout_s = usual
    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.message) == ("timeout", "no answer to generate in time")
    assert time.monotonic() - start < 15


KILLER = """
import os
for pid in open(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read().split():
    if int(pid) != os.getpid():
        os.kill(int(pid), 9)
"""
BREAKERS = {
    "crashes the interpreter": ("crash", "import ctypes; ctypes.string_at(0)"),
    "loops in C": ("timeout", "import ctypes; ctypes.PyDLL(None).pause()"),
    "eats all memory": ("memory", "kept = []\nwhile True: kept.append(bytearray(b'x' * (64 << 20)))"),
    "fills the disk": (
        "disk",
        "import time\nfor n in range(8): open(f'{n}', 'wb').write(bytes(16 << 20))\ntime.sleep(9)",
    ),
    "prints a hundred megabytes": ("measured", "import os\nfor _ in range(1600): os.write(1, b'x' * 65536)"),
    "kills its parent's children": ("build", KILLER),
}


@pytest.mark.slow
def test_a_run_goes_on_after_each_of_them_with_its_status_in_the_store(
    small_disk: Evaluator, tiny_program: TinyProgram, tmp_path: Path
) -> None:
    usual, small_disk.place.timeout_s = small_disk.place.timeout_s, 5.0
    try:
        with Store(tmp_path / "store.sqlite") as store:
            store.open_run("search", {})
            for name, (_, head) in BREAKERS.items():
                asked = store.add_candidate("search", trace=name, key=name, origin="test", facts={})
                store.tell("search", asked.id, small_disk.evaluate(tiny_program(name, head=head), pairs=PAIRS))
            told = {trial.candidate.trace: trial.outcome for trial in store.trials("search")}
    finally:
        small_disk.place.timeout_s = usual
    found = {name: out.kind if isinstance(out, Failed) else "measured" for name, out in told.items()}
    assert found == {name: kind for name, (kind, _) in BREAKERS.items()}
    assert isinstance(small_disk.evaluate(tiny_program("after them"), pairs=PAIRS), Measured)
