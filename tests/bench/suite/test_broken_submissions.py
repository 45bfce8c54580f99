"""Answers that cheat a gate, and the gate that catches each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from diffopt.bench.confinement import landlock_version
from diffopt.bench.environment import needed_to_run
from diffopt.bench.evaluate import Evaluator, Program
from diffopt.bench.forkserver import ForkServer
from diffopt.bench.models import builtin
from diffopt.bench.suite import Method, Task, tasks
from diffopt.bench.suite.arms.rules import answer, baseline
from diffopt.bench.suite.families import FAMILIES
from diffopt.bench.suite.harness import measured_text
from diffopt.bench.suite.measured_gates import absolute_gate, relative_gate
from diffopt.bench.suite.measuring import Protocol, adherence, evaluator_of
from diffopt.bench.suite.static_gate import static_gate, strict_gate
from diffopt.bench.suite.writing import plain_script
from diffopt.bench.workload import Workload

STEPS = 6
PLAIN = plain_script(FAMILIES["sd15"], sampler="dpm-solver", steps=STEPS)
END = "    return pipe.to(device)"
CALL = "    return pipe(\n        prompt,"


def asked(*methods: Method) -> Task:
    return Task("T", 2 if methods else 1, "sd15", "dpm-solver", STEPS, methods, None, "", "")


CACHED = Method("deepcache", {"interval": 2})


def in_load(*lines: str) -> str:
    return PLAIN.replace(END, "".join(f"    {line}\n" for line in lines) + END)


def in_generate(*lines: str) -> str:
    return PLAIN.replace(CALL, "".join(f"    {line}\n" for line in lines) + CALL)


AT_SIGHT: dict[str, tuple[str, str]] = {
    "takes fewer steps than it was asked for": (PLAIN.replace(f"steps={STEPS}", "steps=3"), "steps: 3"),
    "makes images of half the size and enlarges them": (
        PLAIN.replace("=64", "=32").replace(").images", ").images.repeat(2, 1).repeat(2, 2)"), "height: 32"),
    "uses another model": (PLAIN.replace("from_pretrained(model,", 'from_pretrained("demo:shapes-xl",'), "model: "),
    "names another model": (PLAIN.replace('"demo:shapes"', '"demo:shapes-xl"'), "model: "),
    "puts in a part of another model": (
        in_load('pipe.unet = UNet2DConditionModel.from_pretrained("small/unet")').replace(
            "StableDiffusionPipeline\n", "StableDiffusionPipeline, UNet2DConditionModel\n", 1),
        "its unet comes from 'small/unet'"),
    "makes the scheduler and does not use it": (PLAIN.replace("pipe.scheduler = ", "unused = "), "scheduler: 'DDIM"),
    "makes the scheduler where it never comes": (
        PLAIN.replace("    pipe.scheduler =", "    if device == 'tpu':\n        pipe.scheduler ="), "scheduler"),
    "guides less than it was asked to": (PLAIN.replace("guidance_scale=2.0", "guidance_scale=1.0"), "guidance: 1.0"),
    "ignores the prompt": (PLAIN.replace("        prompt,", '        "a red circle",'), "ignores its `prompt`"),
    "ignores the generator": (
        PLAIN.replace("generator=generator", "generator=torch.Generator().manual_seed(0)"), "ignores its `generator`"),
    "caches where nothing was to be accelerated": (
        answer(asked(CACHED)).code, "deepcache is applied, which was not asked for"),
}  # fmt: skip

AT_SIGHT |= {
    "binds generate anew by globals": (
        f"{PLAIN}\nglobals()['generate'] = load\n", "`globals` is used"),
    "binds generate anew by a decorator": (
        PLAIN.replace("def generate", "@print\ndef generate"), "`generate` has the decorator `print`"),
    "binds generate twice": (
        f"{PLAIN}\nif True:\n    def generate(pipe, prompt, generator):\n        return pipe(prompt).images\n",
        "`generate` is bound more than once"),
    "calls the pipeline where nobody reads it": (
        in_generate("if prompt: return type(pipe).__call__(pipe, prompt, num_inference_steps=1).images"),
        "`.__call__` is used"),
    "names what it calls in a text": (
        in_generate("if prompt: return getattr(pipe, '__call__')(prompt, num_inference_steps=1).images"),
        "'__call__' is named"),
    "replaces a loader of diffusers": (
        PLAIN.replace("def load", "StableDiffusionPipeline.from_pretrained = print\n\n\ndef load"), "is replaced"),
    "registers another scheduler": (
        in_load("pipe.register_modules(scheduler=pipe.vae)"), "`.register_modules` is used"),
    "changes what judges it": (
        PLAIN.replace("import torch\n", "import torch\nimport diffopt.bench.suite.harness as h\n", 1), "which judges it"),
}  # fmt: skip

AT_SIGHT |= {
    "makes its denoiser half": (in_load("pipe.unet.half()"), "makes a part float16"),
    "makes its denoiser half under another name": (
        in_load("part = pipe.unet", "part.to(dtype=torch.bfloat16)"), "makes a part bfloat16"),
    "makes its parts half one after another": (
        in_load("for part in (pipe.unet, pipe.vae):", "    part.half()"), "makes a part float16"),
    "loads a part in 16 bits": (
        in_load('pipe.vae = AutoencoderKL.from_pretrained(model, subfolder="vae", torch_dtype=torch.float16)').replace(
            "import ", "import AutoencoderKL, ", 2).replace("import AutoencoderKL, torch", "import torch"),
        "makes a part float16"),
    "makes the whole pipeline half": (in_load("pipe = pipe.to(torch.float16)"), "dtype: 'float16', asked for 'float32'"),
    "stops guiding as the call runs": (
        PLAIN.replace("        generator=generator,", "        generator=generator,\n        callback_on_step_end=print,"),
        "`callback_on_step_end` is given"),
    "replaces the forward of its denoiser": (in_load("pipe.unet.forward = pipe.vae.forward"), "`pipe.unet.forward` is replaced"),
    "sets the guidance where nobody reads it": (
        in_generate("pipe._guidance_scale = 1.0"), "`pipe._guidance_scale` is replaced"),
}  # fmt: skip

OF_A_CACHE: dict[str, tuple[str, str]] = {
    "imports the method and does not apply it": (
        PLAIN.replace("import torch\n", "import torch\nfrom diffopt.backends.runtime import follow_step_plan\n", 1),
        "deepcache is not applied"),
    "applies it at another interval": (
        answer(asked(Method("deepcache", {"interval": 3}))).code, "deepcache: interval 3, asked for 2"),
    "applies it and turns it off again": (
        in_load("helper = DeepCacheSDHelper(pipe=pipe)", "helper.set_params(cache_interval=2)", "helper.enable()",
                "helper.disable()").replace("import torch\n", "import torch\nfrom DeepCache import DeepCacheSDHelper\n", 1),
        "deepcache is not applied"),
    "applies it in a function that nobody calls": (
        answer(asked(CACHED)).code.replace("    follow_step_plan(", "    def never(): follow_step_plan("),
        "`never`, which nothing calls"),
    "applies it in a loop of no turns": (
        answer(asked(CACHED)).code.replace("    follow_step_plan(", "    for _ in (): follow_step_plan("), "in a for"),
    "applies it behind an and": (
        answer(asked(CACHED)).code.replace("    follow_step_plan(", "    False and follow_step_plan("), "in a boolop"),
    "applies it after it has returned": (
        answer(asked(CACHED)).code.replace("    follow_step_plan(", "    return pipe.to(device)\n    follow_step_plan("),
        "after a return"),
    "applies it over more steps than there are": (
        answer(asked(CACHED)).code.replace("full=range(0, 5, 2)", "full=range(0, 9999999999999, 2)"),
        "deepcache is not applied"),
    "applies it at steps that are none": (
        answer(asked(CACHED)).code.replace("full=range(0, 5, 2)", "full=range(0, 5, 0)"), "deepcache is not applied"),
    "applies it only where nobody looks": (
        answer(asked(CACHED)).code.replace("    follow_step_plan(", "    if device == 'tpu': follow_step_plan("),
        "deepcache"),
}  # fmt: skip


@pytest.mark.parametrize("name", AT_SIGHT)
def test_the_static_gate_catches_an_answer_that(name: str) -> None:
    code, reason = AT_SIGHT[name]
    verdict = static_gate(asked(), code)
    assert verdict.error == "key attributes", verdict
    assert any(reason in said for said in verdict.reasons), verdict


def test_a_part_in_16_bits_is_free_where_methods_are_free() -> None:
    aimed = next(task for task in tasks() if task.level == 4 and task.family == "sd15")
    code = baseline(aimed).replace(END, f"    pipe.unet.half()\n    pipe.unet.forward = pipe.unet.forward\n{END}")
    assert static_gate(aimed, code).passed


@pytest.mark.parametrize("name", OF_A_CACHE)
def test_the_static_gate_catches_a_method_that_an_answer(name: str) -> None:
    code, reason = OF_A_CACHE[name]
    verdict = static_gate(asked(CACHED), code)
    assert any(reason in said for said in verdict.reasons), verdict


def test_what_a_comment_or_a_text_says_is_not_done() -> None:
    told = 'X = "cache_interval=2 helper.enable()"\nfrom DeepCache import DeepCacheSDHelper\n'
    code = in_load("helper = DeepCacheSDHelper(pipe=pipe)  # cache_interval=2, helper.enable()")
    code = code.replace("import torch\n", f"import torch\n{told}", 1)
    assert "deepcache is not applied" in static_gate(asked(CACHED), code).reasons


@pytest.mark.parametrize("start", ["-" * 200_000 + "1", "a" + ".b" * 60_000, "'\ud800'"])
def test_code_too_deep_to_be_parsed_is_a_compile_error_in_both_modes(start: str) -> None:
    code = f"x = {start}\n{PLAIN}"
    assert static_gate(asked(), code).error == strict_gate(PLAIN, code).error == "compile"


def test_a_pipeline_that_is_changed_out_of_sight_is_caught_where_methods_are_free_too() -> None:
    hard = next(task for task in tasks() if task.level == 4 and task.family == "sd15")
    code = f"{hard.reference}\nglobals()['generate'] = print\n"
    assert static_gate(hard, hard.reference).passed
    assert static_gate(hard, code).reasons == ("`globals` is used, and what it does cannot be read",)


def test_tgate_with_a_share_of_the_steps_instead_of_a_step_is_caught() -> None:
    code = in_load("TgateSDLoader(pipe, gate_step=0.3)").replace(
        "import torch\n", "import torch\nfrom tgate import TgateSDLoader\n", 1
    )
    reasons = static_gate(asked(Method("tgate", {"gate_step": 2})), code).reasons
    assert reasons == ("tgate: gate_step not a whole step, asked for 2",)


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluator]:
    """The built-in model at 6 steps: enough to follow its prompts."""
    shapes = builtin("demo:shapes")
    assert shapes is not None
    prompts = shapes.prompts("heldout", 4)
    work = Workload(tuple(shapes.prompts("search", 4)), tuple(prompts), 0, 64, 64)
    folder = tmp_path_factory.mktemp("broken")
    with Evaluator(
        Program("baseline", measured_text(baseline(asked()))), work, work=folder, engines=folder / "engines",
        scorer=shapes.scorer(), model=str(shapes.directory), threads=1,
    ) as running:  # fmt: skip
        running.place.readable = needed_to_run(shapes.directory)
        yield running


def gates(evaluator: Evaluator, task: Task, code: str, *, read: bool = True) -> tuple[str, str, str]:
    """Return the first gate that an answer fails, the kind of error, and the reasons; without `read`, of the measured ones."""
    static = static_gate(task, code)
    if read and not static.passed:
        return "static", static.error, "; ".join(static.reasons)
    program = Program("answer", measured_text(code))
    outcome = evaluator.evaluate(program, split="heldout", pairs=(12, 12) if FORKS in code else (1, 1))
    record = {
        "outcome": outcome.to_json(),
        "adherence": adherence(evaluator.images_of(program), "demo:shapes", outcome),
    }
    verdict = absolute_gate(record)
    if not verdict.passed:
        return "absolute", verdict.error, "; ".join(verdict.reasons)
    verdict = relative_gate(task, record)
    return "relative" if not verdict.passed else "", verdict.error, "; ".join(verdict.reasons)


FORKS = """
import os

if os.fork() == 0:
    while True:
        if os.fork():
            os._exit(0)
        os.setsid()
        sum(range(20_000))


def load"""


def test_answers_read_the_libraries_and_their_model_alone(tmp_path: Path) -> None:
    server = ForkServer(tmp_path, environment={})
    evaluator = evaluator_of("demo:shapes", PLAIN, tmp_path, Protocol(), server)
    shapes = builtin("demo:shapes")
    assert shapes is not None
    assert set(evaluator.place.readable) == set(needed_to_run(shapes.directory))
    assert not any(Path(__file__).is_relative_to(path) for path in evaluator.place.readable)


HELPER = """

def put(part, made):
    part.{name} = made


def cast(part):
    return part.bfloat16()


def load"""
"""Changes a part by another name than the pipeline's."""


def helped(code: str, name: str) -> str:
    return code.replace("\n\ndef load", HELPER.format(name=name), 1)


OUT_OF_SIGHT: dict[str, tuple[Task, str, tuple[str, str, str]]] = {
    "shows every prompt the same stored picture": (
        asked(), in_generate(
            "import numpy as np", "rng = np.random.default_rng(len(prompt) * 0)",
            "stored = rng.random((1, 64, 64, 3), dtype='f4')", "if generator is not None: return stored"),
        ("absolute", "absolute quality", "")),
    "gives the pipeline no prompt in the end": (
        asked(), in_generate("prompt = prompt[:0]"), ("absolute", "absolute quality", "")),
    "seeds the generator anew": (
        asked(CACHED), answer(asked(CACHED)).code.replace(CALL, f"    generator.manual_seed(3)\n{CALL}"),
        ("relative", "key attributes", "drew from the generator")),
    "skips steps of the scheduler behind its back": (
        asked(CACHED), helped(answer(asked(CACHED)).code, "set_timesteps").replace(
            END.replace("return ", "pipe = "),
            "    timesteps = pipe.scheduler.set_timesteps\n"
            "    put(pipe.scheduler, lambda count, **rest: timesteps(3, **rest))\n    pipe = pipe.to(device)"),
        ("relative", "key attributes", "6 steps of its scheduler in 2 calls, 6 a call are declared")),
    "computes at half the size inside": (
        asked(), helped(in_load(
            "forward, half = pipe.unet.forward, torch.nn.functional.interpolate",
            "put(pipe.unet, lambda x, *a, **k: (half(forward(half(x, scale_factor=0.5), *a, **k)[0], scale_factor=2.0),))"),
            "forward"),
        ("absolute", "absolute quality", "unlike the baseline's")),
    "computes in half precision and does not say so": (
        asked(), helped(in_load(
            "forward, weights = pipe.unet.forward, cast(pipe.unet)",
            "def half(sample, step, *a, **k):",
            "    k = {n: v.bfloat16() if isinstance(v, torch.Tensor) else v for n, v in k.items()}",
            "    return (forward(sample.bfloat16(), step, *a, **k)[0].float(),)",
            "put(pipe.unet, half)"), "forward"),
        ("relative", "relative quality", "nothing was to be changed")),
    "names a method that then does nothing": (
        asked(CACHED), answer(asked(CACHED)).code.replace(f"steps={STEPS}, full=range(0, 5, 2)", "steps=7, full=range(0, 5, 2)"),
        ("relative", "key attributes", "cache-features did nothing")),
    "keeps images by their prompts, whatever the seed": (
        asked(), PLAIN.replace("\n\ndef load", "\nKEPT = {}\n\n\ndef load", 1).replace(
            CALL, f"    if str(prompt) in KEPT and generator:\n        return KEPT[str(prompt)]\n{CALL}").replace(
            "return pipe(", "KEPT[str(prompt)] = pipe(").replace(").images", ").images\n    return KEPT[str(prompt)]"),
        ("absolute", "protocol", "timed calls gave images")),
    "reads a file of the machine it is judged on": (
        asked(), in_load(f"open({__file__!r}).read()"), ("absolute", "compile", "Permission denied")),
    "works on while the baseline is timed": (
        asked(), PLAIN.replace("\n\ndef load", FORKS, 1), ("absolute", "protocol", "while the baseline was timed")),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", OUT_OF_SIGHT)
def test_the_measured_gates_catch_an_answer_that(evaluator: Evaluator, name: str) -> None:
    task, code, (gate, error, reason) = OUT_OF_SIGHT[name]
    if reason == "Permission denied" and not landlock_version():
        pytest.skip("this kernel has no Landlock")
    # Some the static gate finds too; the measured gates do not lean on it.
    found = gates(evaluator, task, code, read=False)
    assert found[:2] == (gate, error), found
    assert reason in found[2], found


@pytest.mark.slow
@pytest.mark.parametrize("task", [asked(), asked(CACHED)], ids=["plain", "cached"])
def test_an_honest_answer_passes_all_gates(evaluator: Evaluator, task: Task) -> None:
    assert gates(evaluator, task, answer(task).code) == ("", "", "")
