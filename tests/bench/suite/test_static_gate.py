"""The static gate: what means the same passes, what does not says why; the strict mode is the paper's."""

from __future__ import annotations

import pytest

from diffopt.bench.suite import Method, Task, tasks
from diffopt.bench.suite.arms.rules import answer
from diffopt.bench.suite.families import FAMILIES
from diffopt.bench.suite.running import spread
from diffopt.bench.suite.static_gate import static_gate, strict_gate
from diffopt.bench.suite.writing import plain_script

PLAIN = plain_script(FAMILIES["sd15"], sampler="unipc", steps=30)


def task(*methods: Method, level: int = 1, sampler: str = "unipc", steps: int = 30, family: str = "sd15") -> Task:
    return Task("T", level, family, sampler, steps, methods, None, "", "")


def test_smoke_forty_tasks_are_answered_from_their_specification() -> None:
    some = spread(tasks(), 8)
    assert len(some) == 40
    unanswered = [asked.id for asked in some if not answer(asked).code]
    assert all(asked.id in unanswered or static_gate(asked, answer(asked).code).passed for asked in some)
    assert all(answer(a).refused for a in some if a.id in unanswered)


@pytest.mark.slow  # 278 programs are lifted, edited and lifted again
def test_every_answer_of_the_rules_passes_the_static_gate() -> None:
    verdicts = {}
    for asked in tasks():
        code = answer(asked).code
        if code and (asked.level, code) not in verdicts:
            verdicts[asked.level, code] = static_gate(asked, code).reasons
    assert {reasons for reasons in verdicts.values()} == {()}
    missing = [asked for asked in tasks() if not answer(asked).code]
    assert {asked.family for asked in missing} <= {"controlnet"}


EQUAL = {
    "the pipeline's class is found by AutoPipeline": (
        PLAIN.replace("StableDiffusionPipeline", "AutoPipelineForText2Image"), False),
    "the steps are computed": (
        PLAIN.replace("MODEL =", "STEPS = 3 * 10\nMODEL =").replace("steps=30", "steps=STEPS"), False),
    "the scheduler is given to the constructor": (
        PLAIN.replace("    pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config)\n", "").replace(
            "(model, dtype", '(model, scheduler=UniPCMultistepScheduler.from_pretrained(model, subfolder="scheduler"), dtype'),
        True),
    "names are imported under others": (
        PLAIN.replace("import StableDiffusionPipeline, ", "import StableDiffusionPipeline as SD, ").replace(
            "StableDiffusionPipeline.from", "SD.from"), False),
    "arguments go through a dictionary": (
        PLAIN.replace("        num_inference_steps=30,\n        guidance_scale=2.0,\n", "        **CALL,\n").replace(
            "MODEL =", 'CALL = {"num_inference_steps": 30, "guidance_scale": 2.0}\nMODEL ='), False),
    "more is done than was asked, and nothing of it changes what was": (
        PLAIN.replace("    return pipe.to(device)", "    pipe.unet.to(memory_format=torch.channels_last)\n"
                      "    pipe.vae.enable_slicing()\n    return pipe.to(device)"), True),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_code_that_means_the_same_passes_and_strict_wants_it_as_it_is_written(name: str) -> None:
    code, strictly = EQUAL[name]
    assert code != PLAIN
    assert static_gate(task(), code).reasons == ()
    assert strict_gate(PLAIN, code).passed == strictly


@pytest.mark.parametrize(
    "cast", ["pipe.to(torch.bfloat16)", "pipe.to(dtype=torch.bfloat16)", "pipe.to(device).to(torch.bfloat16)"]
)
def test_a_pipeline_may_be_cast_instead_of_loaded_in_16_bits(cast: str) -> None:
    half = task(Method("half", {"dtype": "bfloat16"}), level=2)
    assert (
        static_gate(
            half, PLAIN.replace("    return pipe.to(device)", f"    {cast}\n    return pipe.to(device)")
        ).reasons
        == ()
    )
    assert not static_gate(task(), PLAIN.replace("return pipe.to(device)", f"return {cast}")).passed


@pytest.mark.parametrize(
    "line",
    [
        "torch.nn.Module.half(pipe.unet)",
        "getattr(pipe.unet, 'ha' + 'lf')()",
        "cast = pipe.unet.half",
        "kind = torch.bfloat16; pipe.unet.to(kind)",
        "pipe.unet.to(dtype=getattr(torch, 'bfloat16'))",
        "pipe.unet.apply(lambda part: part.half())",
        "list(map(torch.nn.Module.half, [pipe.unet]))",
        "shrink(pipe.unet)",
        "torch.autocast('cpu', dtype=torch.bfloat16).__enter__()",
        "pipe.unet.register_forward_hook(lambda part, given, made: made)",
        "object.__setattr__(pipe.unet, 'forward', print)",
        "import builtins; builtins.setattr(pipe.unet, 'forward', print)",
        "import sys; sys.modules['builtins'].setattr(pipe.unet, 'forward', print)",
        "part = pipe.unet; part.forward = print",
        "pipe.unet.up_blocks[0] = torch.nn.Identity()",
        "del pipe.unet.up_blocks[0]",
    ],
)
def test_a_part_that_is_changed_in_a_roundabout_way_is_found(line: str) -> None:
    code = PLAIN.replace("    return pipe.to(device)", f"    {line}\n    return pipe.to(device)")
    verdict = static_gate(task(), code + "\n\ndef shrink(part):\n    part.half()\n")
    assert not verdict.passed
    assert len(" ".join(verdict.reasons)) < 300


@pytest.mark.parametrize(
    "lines",
    [
        "pipe.set_progress_bar_config(disable=True)",
        "kind = torch.float32; pipe.unet.to(kind)",
        "other = pipe.to(device); other.scheduler = other.scheduler",
        "checker = getattr(pipe, 'safety_checker', None)",
        "held = {'pipe': pipe}; held['size'] = 64",
    ],
)
def test_what_changes_nothing_is_let_through(lines: str) -> None:
    code = PLAIN.replace("    return pipe.to(device)", f"    {lines}\n    return pipe.to(device)")
    assert not [why for why in static_gate(task(), code).reasons if "scheduler" not in why]


def test_images_may_be_cast() -> None:
    code = PLAIN.replace("    return pipe(", "    made = pipe(").replace(
        ").images\n", ").images\n    return made.astype('float32')\n", 1
    )
    assert (
        static_gate(task(), code.replace("made.astype('float32')", "torch.tensor(made).float().numpy()")).reasons == ()
    )


def test_packages_of_the_papers_world_are_read_like_our_own_passes() -> None:
    applied = (
        "    tomesd.apply_patch(pipe, ratio=0.5)\n    helper = DeepCacheSDHelper(pipe=pipe)\n"
        "    helper.set_params(cache_interval=3, cache_branch_id=0)\n    helper.enable()\n    return pipe.to(device)"
    )
    code = PLAIN.replace("    return pipe.to(device)", applied)
    code = code.replace("import torch\n", "import tomesd\nimport torch\nfrom DeepCache import DeepCacheSDHelper\n", 1)
    wanted = Method("deepcache", {"interval": 3}), Method("tome", {"ratio": 0.5})
    assert static_gate(task(*wanted, level=3), code).reasons == ()
    other = Method("deepcache", {"interval": 2}), Method("tome", {"ratio": 0.3})
    assert static_gate(task(*other, level=3), code).reasons == (
        "deepcache: interval 3, asked for 2",
        "tome: ratio 0.5, asked for 0.3",
    )


def test_strict_finds_what_is_missing_of_the_reference_solution() -> None:
    asked = next(t for t in tasks() if t.level == 2 and t.method("deepcache") and t.family == "sd15")
    truth = answer(asked).code
    assert strict_gate(truth, truth + "\nprint('more')\n").passed
    assert "method 'follow_step_plan' is not in the code" in strict_gate(truth, asked.reference).reasons


def test_what_only_a_run_can_tell_is_named() -> None:
    code = PLAIN.replace("steps=30", "steps=int(input())")
    assert "`steps` cannot be known without running" in static_gate(task(), code).reasons[0]


def test_a_script_that_is_no_python_is_a_compile_error_with_its_line() -> None:
    verdict = static_gate(task(), PLAIN + "\nreturn )\n")
    assert verdict.error == "compile"
    assert verdict.reasons[0].startswith("submission.py:")


def test_levels_with_a_target_leave_sampler_steps_and_methods_free() -> None:
    asked = next(t for t in tasks() if t.level == 4 and t.family == "sd15")
    assert static_gate(asked, PLAIN.replace("steps=30", "steps=int(input())")).passed
    assert not static_gate(asked, PLAIN.replace("demo:shapes", "demo:words")).passed
