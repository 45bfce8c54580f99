"""Every pipeline class of the installed diffusers lifts from its own signature, or says why not."""

from __future__ import annotations

import pytest

from diffopt.bench.corpus.classes import described_class, rows
from diffopt.ir.description import build_module
from diffopt.ir.dialect import denoisers_of, loops, stages
from diffopt.ir.identity import parse_module, print_module
from diffopt.passes.base import registry

NO_LOOP = {
    "FluxPriorReduxPipeline": "has no denoiser",
    "LTX2LatentUpsamplePipeline": "has no denoiser",
    "LTXLatentUpsamplePipeline": "has no denoiser",
}
"""Classes that encode or upsample once and have no denoise loop."""

KINDS = (
    "StableDiffusionXLPipeline",
    "StableDiffusion3Pipeline",
    "FluxPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionControlNetPipeline",
    "KandinskyV22CombinedPipeline",
    "WanPipeline",
    "AudioLDM2Pipeline",
    "DDPMPipeline",
)


@pytest.mark.slow
def test_every_pipeline_class_lifts_or_is_listed_with_its_reason() -> None:
    table = list(rows())
    refused = {row.name: row.said for row in table if not row.lifted}
    assert len(table) > 200
    assert set(refused) == set(NO_LOOP)
    assert all(NO_LOOP[name] in said for name, said in refused.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_each_kind_reads_back_and_every_pass_applies_or_refuses(name: str) -> None:
    from xdsl.context import Context

    module = build_module(described_class(name))
    text = print_module(module)
    assert print_module(parse_module(text)) == text
    for kind in registry().values():
        for instance in list(kind.space(module))[:3]:
            refusal = instance.refuse(module)
            if refusal is not None:
                assert refusal.reason
                continue
            changed = module.clone()
            instance.apply(Context(), changed)
            changed.verify()
            assert print_module(changed) != text


@pytest.mark.slow
def test_a_prior_is_a_stage_of_its_own() -> None:
    prior, decoder = stages(build_module(described_class("KandinskyV22CombinedPipeline")))
    assert prior[0].predicts[0].component.root_reference.data == "prior_prior"
    assert decoder[0].predicts[0].component.root_reference.data == "unet"


@pytest.mark.slow
def test_a_distilled_scale_is_an_input_of_the_denoiser() -> None:
    module = build_module(described_class("FluxPipeline"))
    (loop,) = loops(module)
    assert loop.guide is None
    assert loop.predicts[0].scale is not None
    assert [part.sym_name.data for part in denoisers_of(module)] == ["transformer"]
