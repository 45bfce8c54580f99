"""What is read off the source of the installed libraries is what they do."""

from __future__ import annotations

import pytest

from diffopt.doctor.deprecations import deprecations
from diffopt.doctor.installed import (
    ancestry,
    caches_with_context,
    extra_arguments,
    has_cache,
    knows_flow,
    members,
    names_of,
    opens_cache_context,
    switches_gradients_off,
)


def test_names_of_an_imported_library_are_those_it_has() -> None:
    import diffusers.utils
    import torchao.quantization

    for name in ("diffusers.utils", "torchao.quantization"):
        module = {"diffusers.utils": diffusers.utils, "torchao.quantization": torchao.quantization}[name]
        read = names_of(name)
        assert read is not None
        assert {n for n in dir(module) if not n.startswith("_")} <= read


def test_a_library_that_is_not_there_has_no_names_to_miss() -> None:
    assert names_of("no_such_library") is None
    assert names_of("diffusers.no_such_module") is None


@pytest.mark.slow
def test_methods_that_are_read_are_those_of_the_class() -> None:
    from diffusers import FluxPipeline, StableDiffusionPipeline

    for made in (StableDiffusionPipeline, FluxPipeline):
        methods = {name for name in dir(made) if callable(getattr(made, name)) and not name.startswith("__")}
        assert methods - members(made.__name__) == set()
        assert not hasattr(made, "enable_vae_slicing")


def test_knows_which_pipelines_open_a_cache_context() -> None:
    assert opens_cache_context("FluxPipeline")
    assert not opens_cache_context("FluxImg2ImgPipeline")
    assert has_cache("FluxTransformer2DModel")
    assert not has_cache("UNet2DConditionModel")
    assert {"FirstBlockCacheConfig", "MagCacheConfig", "TaylorSeerCacheConfig"} <= caches_with_context()
    assert not {"PyramidAttentionBroadcastConfig", "FasterCacheConfig"} & caches_with_context()


def test_finds_deprecated_arguments_methods_and_classes() -> None:
    found = {(d.method, d.argument) for d in deprecations("StableDiffusionXLPipeline")}
    assert {("__call__", "callback"), ("__call__", "callback_steps"), ("upcast_vae", "")} <= found
    assert ("", "") not in found
    assert any(d.method == "" and d.argument == "" for d in deprecations("QuantoConfig"))
    assert any("gets no more fixes" in d.message for d in deprecations("StableDiffusionPanoramaPipeline"))


def test_tells_ignored_arguments_from_refused_ones() -> None:
    assert extra_arguments("StableDiffusionPipeline") == frozenset({"callback", "callback_steps"})
    assert extra_arguments("FluxPipeline") == frozenset()
    assert extra_arguments("NoSuchPipeline") is None


def test_knows_flow_schedulers_and_methods_without_gradients() -> None:
    assert knows_flow("FlowMatchHeunDiscreteScheduler")
    assert not knows_flow("EulerDiscreteScheduler")
    assert switches_gradients_off("IFPipeline", "encode_prompt")
    assert not switches_gradients_off("StableDiffusionPipeline", "encode_prompt")
    assert [node.name for node in ancestry("NoSuchClass")] == []
