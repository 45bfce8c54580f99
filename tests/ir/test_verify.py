"""Each rule has a module that breaks it, and says exactly this sentence."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components, loops
from diffopt.ir.identity import parse_module, print_module
from diffopt.ir.verify import RULES, Diagnostic, Stage, verify

TAIL = """%n2 = diffusion.denoise @scheduler steps {start} to 50 from %x {{
    ^bb0(%y: !diffusion.latent, %s: !diffusion.timestep):
      %p = diffusion.predict @unet(%y, %s, %c)
      %q = diffusion.predict @unet(%y, %s, %u)
      %g = diffusion.guide %q, %p by {scale}
      %m = diffusion.step @scheduler(%y, %s, %g)
      diffusion.yield %m
    }}
    %image"""
"""A second guided loop, put before the decoding."""


def _edited(module: ModuleOp, *edits: tuple[str, str]) -> ModuleOp:
    text = print_module(module)
    for before, after in edits:
        assert before in text, before
        text = text.replace(before, after)
    return parse_module(text)


def _two_loops(module: ModuleOp, start: int = 20, scale: str = "2.0") -> ModuleOp:
    return _edited(module, ("0 to 50", "0 to 20"), ("%image =", TAIL.format(start=start, scale=scale) + " ="))


def test_the_standard_module_breaks_no_rule(standard_module: ModuleOp) -> None:
    assert verify(standard_module, Stage.EMITTABLE) == ()
    assert verify(_two_loops(standard_module), Stage.EMITTABLE) == ()


TEXT_CASES = [
    ("has-pipeline", "there is no component @pipeline", "module", [("@pipeline", "@other")]),
    (
        "has-pipeline",
        "there is no denoiser (one of unet, transformer)",
        "module",
        [("component @unet", "component @net"), ("predict @unet", "predict @net")],
    ),
    ("has-loops", "a loop starts at step 3 where 0 is next", "diffusion.denoise", [("steps 0 to", "steps 3 to")]),
    (
        "has-loops",
        "a loop runs to step 10001, more than the 10000 a schedule may have",
        "diffusion.denoise",
        [("steps 0 to 50", "steps 0 to 10001"), ("steps = 50", "steps = 10001")],
    ),
    ("symbols-resolve", "@net is not a component", "diffusion.predict", [("predict @unet", "predict @net")]),
    ("symbols-resolve", "@vea is not a component", "diffusion.decode", [("decode @vae", "decode @vea")]),
    (
        "unrolled-whole",
        "a step has weights, and its loop no timestep",
        "diffusion.step",
        [("%t, %e)\n", "%t, %e) weights [1.0, 1.0]\n")],
    ),
    (
        "prompt-counts",
        "a guided loop makes the same prediction twice",
        "diffusion.predict",
        [("%t, %u)", "%t, %c)")],
    ),
    (
        "steps-agree",
        "the scheduler declares 50 steps and the loops run 20",
        "@scheduler",
        [("steps 0 to 50", "steps 0 to 20")],
    ),
    ("one-call", "a guidance scale is more than 1, not 0.5", "diffusion.guide", [("by 2.000000e+00", "by 0.5")]),
    (
        "unconditional-within-schedule",
        "the unconditional prediction is computed at the first step of its loop",
        "diffusion.guide",
        [("by 2.000000e+00", "by 2.000000e+00 fresh at [1, 2] difference")],
    ),
    (
        "unconditional-within-schedule",
        "the steps that compute it are in order, each once, and below 50",
        "diffusion.guide",
        [("by 2.000000e+00", "by 2.000000e+00 fresh at [0, 50] prediction")],
    ),
    (
        "cache-within-schedule",
        "the denoiser calls follow different cache schedules",
        "diffusion.predict",
        [("(%x_1, %t, %c)", "(%x_1, %t, %c) full at [0, 2] branch 0")],
    ),
    *(
        (
            "cache-within-schedule",
            sentence,
            "diffusion.predict",
            [("%t, %c)", f"%t, %c) {plan}"), ("%t, %u)", f"%t, %u) {plan}")],
        )
        for sentence, plan in [
            ("a cache schedule starts with a full step", "full at [1, 2] branch 0"),
            ("a cache schedule starts with a full step", "full at [] branch 0"),
            ("a cache schedule names its full steps in order, each once", "full at [0, 4, 4] branch 0"),
            ("a cache schedule names its full steps in order, each once", "full at [0, 4, 2] branch 0"),
            ("the cache schedule names step 50 of 50", "full at [0, 50] branch 0"),
        ]
    ),
    (
        "names-are-identifiers",
        "'un-et' is no name for a component",
        "@un-et",
        [("component @tokenizer", 'component @"un-et"')],
    ),
    (
        "names-are-identifiers",
        "'transformers.CLIP Tokenizer' is no class name",
        "@tokenizer",
        [("transformers.CLIPTokenizer", "transformers.CLIP Tokenizer")],
    ),
    ("names-are-identifiers", "'class' is no class name", "@tokenizer", [("transformers.CLIPTokenizer", "class")]),
    (
        "names-are-identifiers",
        "'CLIPTokenizer' does not say which library it is from",
        "@tokenizer",
        [('"transformers.CLIPTokenizer"', '"CLIPTokenizer"')],
    ),
    (
        "names-are-identifiers",
        "'os.StableDiffusionPipeline' is not from diffusers, and emitted code imports nothing else",
        "@pipeline",
        [("diffusers.StableDiffusionPipeline", "os.StableDiffusionPipeline")],
    ),
    (
        "names-are-identifiers",
        "'a-b' is no name for an argument",
        "@scheduler",
        [("steps = 50", 'overrides = {"a-b" = 1 : i64}, steps = 50')],
    ),
    (
        "origins-are-names",
        r"'x\nimport os' is no name of a pass",
        "diffusion.component",
        [("steps = 50", 'origin = "x\\nimport os", steps = 50')],
    ),
    (
        "size-is-known",
        "height must be a whole number of pixels: give --set height=PIXELS --set width=PIXELS, or download the model",
        "@pipeline",
        [("height = 64 : i64, ", "")],
    ),
    (
        "plan-is-plain",
        "guidance asks the denoiser twice in turn: no plan over its steps can be followed yet",
        "diffusion.denoise",
        [
            ("by 2.000000e+00", "by 2.000000e+00 in_turn"),
            ("(%x_1, %t, %c)", "(%x_1, %t, %c) full at [0, 2] branch 0"),
            ("(%x_1, %t, %u)", "(%x_1, %t, %u) full at [0, 2] branch 0"),
        ],
    ),
    ("call-is-complete", "width must be a whole number of pixels", "@pipeline", [("width = 64", "width = -64")]),
    ("call-is-complete", "model must name a model directory or hub id", "@pipeline", [("model =", "mode =")]),
    (
        "call-is-complete",
        "dtype must be one of float32, float16, bfloat16",
        "@pipeline",
        [('"float32"', '"float8"')],
    ),
]


@pytest.mark.parametrize(
    ("rule", "sentence", "where", "edits"), TEXT_CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_breach_says_its_rule_sentence_and_place(
    standard_module: ModuleOp, rule: str, sentence: str, where: str, edits: list[tuple[str, str]]
) -> None:
    assert verify(_edited(standard_module, *edits), Stage.EMITTABLE)[0] == Diagnostic(rule, sentence, where)


def test_a_module_without_a_loop_or_a_denoiser_call_is_refused(standard_module: ModuleOp) -> None:
    silent = standard_module.clone()
    loop = loops(silent)[0]
    *rest, last = loop.body.block.ops
    last.operands[0] = loop.body.block.args[0]
    for op in reversed(rest):
        loop.body.block.erase_op(op)
    assert verify(silent, Stage.LIFTED)[0].message == "a loop never asks the denoiser"
    loop.result.replace_all_uses_with(loop.initial)
    block = loop.parent_block()
    assert block is not None
    block.erase_op(loop)
    assert verify(silent, Stage.LIFTED)[0].message == "there is no diffusion.denoise loop"


def test_loops_follow_each_other(standard_module: ModuleOp) -> None:
    broken = verify(_two_loops(standard_module, start=30), Stage.LIFTED)
    assert broken[0] == Diagnostic("has-loops", "a loop starts at step 30 where 20 is next", "diffusion.denoise")


def test_loops_share_one_guidance_scale(standard_module: ModuleOp) -> None:
    broken = verify(_two_loops(standard_module, scale="3.0"), Stage.SCHEDULED)
    assert broken == (Diagnostic("one-call", "the loops are guided by different scales: 2, 3", "diffusion.guide"),)


def test_loops_share_one_scheduler_and_one_denoiser(standard_module: ModuleOp) -> None:
    other = _edited(_two_loops(standard_module), ("denoise @scheduler steps 20", "denoise @vae steps 20"))
    assert verify(other, Stage.SCHEDULED)[0].message == "the loops follow different schedulers"
    other = _edited(_two_loops(standard_module), ("predict @unet(%y", "predict @vae(%y"))
    assert [d.message for d in verify(other, Stage.SCHEDULED)] == ["the loops ask different denoisers"]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("export quantize", "quantize after export: what export makes is made of what stands before it"),
        ("compile quantize", "quantize after compile: what compile makes is made of what stands before it"),
        ("export export", "export after export: no torch code is left of the component"),
        ("export compile", "compile after export: no torch code is left of the component"),
        ("compile export", "export after compile: no torch code is left of the component"),
    ],
)
def test_an_order_of_transforms_that_cannot_work_is_refused(
    standard_module: ModuleOp, names: str, sentence: str
) -> None:
    module = standard_module.clone()
    for name in names.split():
        components(module)["unet"].add_transform(name, {}, name)
    assert verify(module, Stage.SCHEDULED) == (Diagnostic("transform-order", sentence, "@unet"),)


def test_a_whole_pipeline_engine_holds_no_other(standard_module: ModuleOp) -> None:
    module = standard_module.clone()
    components(module)["pipeline"].add_transform("export", {}, "export")
    assert verify(module, Stage.SCHEDULED) == ()
    components(module)["vae"].add_transform("export", {}, "export")
    sentence = "export inside a whole-pipeline engine: it holds @vae already"
    assert verify(module, Stage.SCHEDULED) == (Diagnostic("one-engine", sentence, "@vae"),)


@pytest.mark.parametrize(
    ("transform", "arguments", "sentence"),
    [
        ("a b", {}, "'a b' is no name for a transform"),
        ("quantize", {"lambda": 1}, "'lambda' is no name for an argument"),
        ("quantize", {"": 1}, "'' is no name for an argument"),
        ("quantize", {"é": 1}, "'é' is no name for an argument"),
        ("export", {"engines": 1}, "'engines' is an argument that the emitted code gives itself"),
    ],
)
def test_names_in_a_transform_are_identifiers(
    standard_module: ModuleOp, transform: str, arguments: dict[str, int], sentence: str
) -> None:
    module = standard_module.clone()
    components(module)["unet"].add_transform(transform, arguments, "")
    assert verify(module, Stage.EMITTABLE) == (Diagnostic("names-are-identifiers", sentence, "@unet"),)


def test_a_stage_asks_nothing_of_the_next(standard_module: ModuleOp) -> None:
    module = _edited(standard_module, ("steps 0 to 50", "steps 0 to 20"), ('"float32"', '"float8"'))
    assert verify(module, Stage.LIFTED) == ()
    assert {d.rule for d in verify(module, Stage.EMITTABLE)} == {"steps-agree"}, "the first broken stage speaks alone"


def test_every_rule_has_a_failing_module_here() -> None:
    here = {case[0] for case in TEXT_CASES} | {"transform-order", "one-engine"}
    assert {rule.name for rules in RULES.values() for rule in rules} == here


def test_verifying_changes_nothing(standard_module: ModuleOp) -> None:
    before = print_module(standard_module)
    verify(standard_module, Stage.EMITTABLE)
    assert print_module(standard_module) == before
