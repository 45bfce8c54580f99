"""Modules that passes are tried on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import Adapter, ComponentDescription, build_module
from diffopt.ir.source_directory import describe_hub

NOWHERE = Path("no", "such", "folder")


@pytest.fixture(scope="session")
def modules(standard_module: ModuleOp, transformer_module: ModuleOp) -> dict[str, ModuleOp]:
    """Modules by the names that examples use; shared, so nobody may change one."""
    pixart = describe_hub("PixArt-alpha/PixArt-XL-2-512x512", "PixArtAlphaPipeline", cache_folder=NOWHERE)
    flux = describe_hub("black-forest-labs/FLUX.1-schnell", "FluxPipeline", cache_folder=NOWHERE)
    found = {"unet": standard_module, "flow": transformer_module}
    for name, described in (("transformer", pixart), ("flux", flux)):
        found[name] = build_module(dataclasses.replace(described, height=512, width=512))
    found["adapted"] = adapted_module()
    return found


def adapted_module() -> ModuleOp:
    """Return a Stable Diffusion known by its class alone, with a LoRA and a safety checker."""
    described = describe_hub(
        "stable-diffusion-v1-5/stable-diffusion-v1-5", "StableDiffusionPipeline", cache_folder=NOWHERE
    )
    checker = ComponentDescription(
        "safety_checker", "diffusers.pipelines.stable_diffusion.StableDiffusionSafetyChecker", {}
    )
    parts = (*(part for part in described.components if part.name != "safety_checker"), checker)
    lora = Adapter("lora", "somewhere/lora", scale=0.8)
    return build_module(dataclasses.replace(described, height=512, width=512, adapters=(lora,), components=parts))
