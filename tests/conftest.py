"""What tests of several rooms share: model directories, the standard module, golden texts."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdsl.dialects.builtin import ModuleOp

    from diffopt.bench.forkserver import ForkServer

# Triton decides when a kernel is imported; without a GPU the tests run kernels in its interpreter.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).resolve().parent / "golden"

# A worker holds millions of objects of torch, diffusers and xDSL; looking through them again and again took a sixth of its time.
gc.set_threshold(50_000, 20, 50)

# A test says the same on a busy machine and on every run: no deadlines, no random seeds.
settings.register_profile(
    "diffopt",
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("diffopt"), max_examples=200)
settings.load_profile("diffopt")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden texts anew; read the diff")
    parser.addoption("--thorough", action="store_true", help="try every law on more examples; takes longer")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--thorough"):
        settings.load_profile("thorough")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Workers take whole files in this order: were a long one the last, all others would wait for its worker.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with `tests/golden/NAME`; with `--update-golden`, write it there."""

    def check(name: str, text: str) -> None:
        file = GOLDEN / name
        if request.config.getoption("--update-golden"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert file.is_file(), f"no golden text {name}: run pytest with --update-golden"
        assert text == file.read_text(encoding="utf-8")

    return check


@pytest.fixture(scope="session", autouse=True)
def kept_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Evaluators of one environment share a fork server, which takes five seconds to start; nothing of a run stays in it."""
    from diffopt.bench.forkserver import ForkServer

    class Kept(ForkServer):
        def close(self) -> None:
            if self.pid is None:
                super().close()

    kept: dict[object, Kept] = {}

    def server(work: Path, *, environment: Mapping[str, str], cpus: list[int] | None) -> ForkServer:
        key = (tuple(sorted(environment.items())), tuple(cpus or ()))
        if key not in kept:
            kept[key] = Kept(tmp_path_factory.mktemp("forkserver"), environment=environment, cpus=cpus)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffopt.bench.evaluate.ForkServer", server)
        yield
    for each in kept.values():
        ForkServer.close(each)


@pytest.fixture(scope="session")
def shapes_directory() -> Path:
    """The built-in model's directory."""
    return REPOSITORY / "bench" / "models" / "shapes" / "weights"


@pytest.fixture(scope="session")
def standard_module(shapes_directory: Path) -> Iterator[ModuleOp]:
    """The built-in model at 50 steps and guidance 2; shared, so ask for a clone to change it."""
    from diffopt.ir.description import build_module
    from diffopt.ir.identity import print_module
    from diffopt.ir.source_directory import describe_directory

    module = build_module(describe_directory(shapes_directory, steps=50, guidance=2.0, name="shapes"))
    before = print_module(module)
    yield module
    assert print_module(module) == before, "a test changed the shared module"


@pytest.fixture(scope="session")
def transformer_module() -> Iterator[ModuleOp]:
    """A flow-matching pipeline around a transformer of four blocks, at 50 steps and guidance 4; no weights."""
    from diffopt.ir.description import JSON, ComponentDescription, PipelineDescription, build_module
    from diffopt.ir.identity import print_module

    parts: dict[str, tuple[str, dict[str, JSON]]] = {
        "transformer": ("diffusers.SD3Transformer2DModel", {"num_layers": 4, "sample_size": 16}),
        "scheduler": ("diffusers.FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": 1000, "shift": 3.0}),
        "vae": ("diffusers.AutoencoderKL", {}),
        "text_encoder": ("transformers.CLIPTextModelWithProjection", {}),
    }
    components = tuple(ComponentDescription(name, kind, config) for name, (kind, config) in parts.items())
    module = build_module(
        PipelineDescription(
            "flow", "diffusers.StableDiffusion3Pipeline", "somewhere/flow", components, 50, 4.0, 128, 128
        )
    )
    before = print_module(module)
    yield module
    assert print_module(module) == before, "a test changed the shared module"


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory, shapes_directory: Path) -> Path:
    """A pipeline of the built-in model's classes and none of its sizes: 48x64 images, untrained, seed 0."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(shapes_directory / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = StableDiffusionPipeline(
            tokenizer=tokenizer,
            text_encoder=CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(tokenizer),
                    hidden_size=64,
                    intermediate_size=96,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    max_position_embeddings=tokenizer.model_max_length,
                    bos_token_id=tokenizer.bos_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
            ),
            vae=AutoencoderKL(
                sample_size=64,
                latent_channels=4,
                block_out_channels=(8, 16, 16),
                down_block_types=("DownEncoderBlock2D",) * 3,
                up_block_types=("UpDecoderBlock2D",) * 3,
                layers_per_block=1,
                norm_num_groups=4,
            ),
            unet=UNet2DConditionModel(
                sample_size=(12, 16),
                block_out_channels=(32, 64),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                layers_per_block=1,
                cross_attention_dim=64,
                attention_head_dim=4,
                norm_num_groups=8,
            ),
            scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    directory = tmp_path_factory.mktemp("models") / "tiny"
    pipe.save_pretrained(directory)
    shutil.rmtree(directory / "tokenizer")
    shutil.copytree(shapes_directory / "tokenizer", directory / "tokenizer")
    return directory
