"""Adapters are folded into the weights: images as with the adapter, and no layer of it left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffopt.backends.base import BackendError
from diffopt.backends.runtime import distill_lora, fuse_lora, quantize, witnesses

pytest.importorskip("peft")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lora(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random adapter of the tiny UNet's attention."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = UNet2DConditionModel.from_pretrained(tiny_directory / "unet")
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian"))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in unet.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    folder = tmp_path_factory.mktemp("lora")
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    return folder


@pytest.fixture
def load(tiny_directory: Path) -> Callable[[], Any]:
    """Return a function that loads the tiny pipeline."""
    from diffusers import StableDiffusionPipeline

    def loaded() -> Any:
        pipe = StableDiffusionPipeline.from_pretrained(tiny_directory)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return loaded


def _image(pipe: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    found: torch.Tensor = pipe("a red circle", num_inference_steps=2, generator=generator, output_type="pt").images
    return found


def _adapted_layers(pipe: Any) -> int:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return sum(isinstance(module, BaseTunerLayer) for module in pipe.unet.modules())


def test_a_fused_adapter_makes_the_images_of_the_loaded_one(load: Callable[[], Any], lora: Path) -> None:
    plain, adapted = load(), load()
    adapted.load_lora_weights(lora, adapter_name="random")
    adapted.set_adapters(["random"], adapter_weights=[0.5])
    expected, layers = _image(adapted), _adapted_layers(adapted)
    assert (expected - _image(plain)).abs().max() > 1e-3, "the adapter changes something"
    fuse_lora(adapted, "unet")
    assert _adapted_layers(adapted) == 0
    assert (_image(adapted) - expected).abs().max() < 1e-4
    assert {w.transform: w.count for w in witnesses(adapted)} == {"fuse_lora": layers}


def test_a_distilled_adapter_comes_on_top_of_those_that_are_loaded(load: Callable[[], Any], lora: Path) -> None:
    alone, both = load(), load()
    distill_lora(alone, "unet", adapter=str(lora), weight_name="pytorch_lora_weights.safetensors")
    both.load_lora_weights(lora, adapter_name="first")
    distill_lora(both, "unet", adapter=str(lora))
    for pipe in (alone, both):
        assert _adapted_layers(pipe) == 0
        assert all(w.count > 0 for w in witnesses(pipe))
    assert (_image(alone) - _image(both)).abs().max() > 1e-3


def test_what_cannot_be_folded_is_refused(load: Callable[[], Any], lora: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no adapter is loaded"):
        fuse_lora(load(), "unet")
    with pytest.raises(BackendError, match="does not load"):
        distill_lora(load(), "unet", adapter=str(tmp_path / "nowhere"))
    quantized = load()
    quantize(quantized, "unet")
    with pytest.raises(BackendError, match="cannot follow quantize"):
        fuse_lora(quantized, "unet")
