"""A move is taken out only where nothing uses the pipeline before it is offloaded."""

from __future__ import annotations

import pytest

from diffopt.doctor.runner import fixed, lint

HEAD = """\
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from here import helper, load_image, Runner

unet = UNet2DConditionModel.from_pretrained("model", subfolder="unet")
pipe = StableDiffusionPipeline.from_pretrained("model", unet=unet)
part = pipe.vae
kept = []
kept.append(pipe)
def encode():
    return pipe.encode_prompt("x", "cuda", 1, True)
"""
USES = [
    'emb, neg = pipe.encode_prompt("x", "cuda", 1, True)',
    'image = pipe("a cat").images[0]',
    "helper(pipe)",
    "pipe.unet(torch.zeros(1).to('cuda'), 1)",
    "print(pipe.device)",
    "noise = torch.zeros(1, device=pipe.device)",
    "other = pipe",
    "helper([pipe])",
    "helper(unet=pipe.unet)",
    "part.decode(torch.zeros(1, device='cuda'))",
    "unet(torch.zeros(1).to('cuda'), 1)",
    "encode()",
    "kept[0]('a cat')",
    "exec('pipe(1)')",
    "pipe.scheduler = helper(pipe)",
    "pipe.unet.enable_gradient_checkpointing(), pipe.vae.decode(1)",
    "if helper: pipe('a cat')",
    "pipe.vae = helper(pipe.vae)",
]
SETTINGS = [
    "pipe.enable_xformers_memory_efficient_attention()",
    "pipe.set_progress_bar_config(disable=True)",
    "pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)",
    "pipe.vae.enable_tiling()",
    "image = load_image('cat.png')",
    "generator = torch.Generator('cpu').manual_seed(0)",
    'pipe.load_lora_weights("lora")',
]


def script(between: str, move: str = 'pipe.to("cuda")') -> str:
    """Return a script that does something between a move and offloading."""
    return f"{HEAD}{move}\n{between}\npipe.enable_model_cpu_offload()\n"


@pytest.mark.parametrize("move", ['pipe.to("cuda")', 'pipe = pipe.to("cuda")'])
@pytest.mark.parametrize("between", USES)
def test_a_pipeline_that_is_used_on_the_gpu_before_it_is_offloaded_stays_there(between: str, move: str) -> None:
    text = script(between, move)
    assert not [finding for finding in lint(text, "s.py") if finding.rule == "DIFF008"]
    assert 'pipe.to("cuda")' in fixed(text, "s.py")


@pytest.mark.parametrize("between", SETTINGS)
def test_settings_are_no_use(between: str) -> None:
    text = script(between)
    assert [finding.fixable for finding in lint(text, "s.py") if finding.rule == "DIFF008"] == [True]


@pytest.mark.parametrize("use", ['helper(pipe.to("cuda"))', 'images = pipe.to("cuda")("a cat").images'])
def test_what_is_moved_and_handed_on_at_once_is_used(use: str) -> None:
    text = script("", use)
    assert not [finding for finding in lint(text, "s.py") if finding.rule == "DIFF008"]


def test_a_pipeline_of_an_object_may_be_used_by_its_methods() -> None:
    text = (
        "from diffusers import StableDiffusionPipeline\n"
        "class Runner:\n"
        "    def __init__(self):\n"
        '        self.pipe = StableDiffusionPipeline.from_pretrained("model")\n'
        '        self.pipe.to("cuda")\n'
        "        {}\n"
        "        self.pipe.enable_model_cpu_offload()\n"
    )
    assert [f.rule for f in lint(text.format("self.steps = 20"), "s.py")] == ["DIFF008"]
    assert lint(text.format("self.warm_up()"), "s.py") == []


AFTER = ["pipe.vae.decode(torch.zeros(1, device='cuda'))", "helper(pipe)", "print(pipe.device)", "encode()"]


@pytest.mark.parametrize("use", AFTER)
def test_a_move_behind_offloading_is_left_to_a_person_where_parts_are_used_by_hand(use: str) -> None:
    text = HEAD.partition("part")[0] + f'pipe.enable_model_cpu_offload()\npipe.to("cuda")\n{use}\n'
    if use == "encode()":
        text = HEAD.replace("part = pipe.vae\n", "") + f'pipe.enable_model_cpu_offload()\npipe.to("cuda")\n{use}\n'
    assert [f.fixable for f in lint(text, "s.py") if f.rule == "DIFF009"] == [False]
    assert 'pipe.to("cuda")' in fixed(text, "s.py")


def test_a_move_behind_offloading_goes_where_the_pipeline_is_only_called() -> None:
    text = HEAD.partition("unet")[0].replace("DDIMScheduler, ", "")
    text += 'pipe = StableDiffusionPipeline.from_pretrained("model")\npipe.enable_model_cpu_offload()\n'
    text += 'pipe.to("cuda")\nimage = pipe("a cat").images[0]\n'
    assert 'pipe.to("cuda")' not in fixed(text, "s.py")


def test_a_generator_that_draws_on_the_gpu_elsewhere_is_left_to_a_person() -> None:
    text = (
        "import torch\nfrom diffusers import StableDiffusionPipeline\n"
        'pipe = StableDiffusionPipeline.from_pretrained("model")\n'
        'seed = torch.Generator("cuda")\n{}image = pipe("a cat", generator=seed).images[0]\n'
    )
    draws = 'noise = torch.randn(1, generator=seed, device="cuda")\n'
    assert [f.fixable for f in lint(text.format(""), "s.py")] == [True]
    assert [f.fixable for f in lint(text.format(draws), "s.py")] == [False]


def test_timesteps_that_somebody_may_look_at_are_not_set_in_vain() -> None:
    text = (
        "from diffusers import StableDiffusionPipeline\nfrom here import helper\n"
        'pipe = StableDiffusionPipeline.from_pretrained("model")\n'
        'pipe.scheduler.set_timesteps(30)\n{}image = pipe("a cat").images[0]\n'
    )
    assert [f.rule for f in lint(text.format(""), "s.py")] == ["DIFF030"]
    assert lint(text.format("helper(pipe.scheduler)\n"), "s.py") == []
