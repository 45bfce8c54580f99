"""A tiny random StableDiffusionPipeline on disk, programs that use it, and an evaluator that measures them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffopt.bench.environment import allowed
from diffopt.bench.evaluate import Evaluator, Program
from diffopt.bench.forkserver import ForkServer
from diffopt.bench.workload import DEFAULT_PROMPTS, Workload

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "SOME_API_KEY": "sesame"}

SIZE = 16
BASELINE = """
from diffusers import StableDiffusionPipeline

MODEL = {model!r}

def load(model=MODEL, device="cpu", engines=None):
    pipe = StableDiffusionPipeline.from_pretrained(model).to(device)
    call = type(pipe).__call__
    class Tuned(type(pipe)):
        def __call__(self, *args, **kwargs):
            defaults = dict(num_inference_steps={steps}, guidance_scale=2.0, height={size}, width={size})
            return call(self, *args, **defaults | kwargs)
    pipe.__class__ = Tuned
    return pipe
"""


TinyProgram = Callable[..., Program]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a random pipeline of 16 x 16 pixels."""
    return _save_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_program(tiny_model: Path) -> TinyProgram:
    """Make a program of the tiny pipeline, with code before and after it: `tiny_program(name, tail=..., steps=...)`."""

    def make(name: str, *, head: str = "", tail: str = "", steps: int = 3, size: int = SIZE) -> Program:
        text = BASELINE.format(model=str(tiny_model), steps=steps, size=size)
        return Program(name, f"{head}\n{text}\n{tail}\n")

    return make


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """One fork server for all evaluators: importing torch and diffusers takes seconds."""
    environment = allowed(ENVIRONMENT, home=tmp_path_factory.mktemp("home"), threads=1)
    with ForkServer(tmp_path_factory.mktemp("server"), environment=environment, cpus=None) as running:
        yield running


@pytest.fixture(scope="session")
def evaluator(
    tmp_path_factory: pytest.TempPathFactory, tiny_program: TinyProgram, server: ForkServer
) -> Iterator[Evaluator]:
    """One evaluator for all tests: whatever a program does, the next one must be measured as if nothing had been."""
    work = tmp_path_factory.mktemp("work")
    workload = Workload(DEFAULT_PROMPTS[:6], DEFAULT_PROMPTS[6:10], seed=0, height=SIZE, width=SIZE)
    with Evaluator(
        tiny_program("baseline"), workload, work=work, engines=work / "engines", timeout_s=60.0,
        memory_limit=1 << 30, server=server,
    ) as running:  # fmt: skip
        yield running


def _save_model(folder: Path) -> Path:
    """Write a random pipeline of the real classes in the standard layout."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789,.-'")
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=32,
        unk_token="<|endoftext|>", bos_token="<|startoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>",
    )  # fmt: skip
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokens), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=32, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=SIZE // 2, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=4, sample_size=SIZE,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    scheduler = DDIMScheduler(steps_offset=1, clip_sample=False)
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder / "model")
    return folder / "model"
