"""Descriptions of every kind, and chains of them, come back from their text; a hub id is read off a snapshot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffopt.bench.corpus.classes import described_class
from diffopt.ir.description import Assumption, PipelineDescription, Span, build_chain, build_module
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import module_hash, parse_module, print_module
from diffopt.ir.source_directory import describe_directory, describe_hub
from diffopt.ir.source_script import describe_texts

CLASSES = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusion3Pipeline",
    "FluxPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionInpaintPipeline",
    "WanPipeline",
    "StableCascadeDecoderPipeline",
    "StableAudioPipeline",
)
CHAIN = """\
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
base = StableDiffusionXLPipeline.from_pretrained("a/base")
refiner = StableDiffusionXLImg2ImgPipeline.from_pretrained("a/refiner")
latents = base("x", output_type="latent", height=64, width=64).images
refiner("x", image=latents)
"""
ASSUMED = st.builds(Assumption, st.text(), st.just(Span("é b.py", 1, 2, 3, 4)) | st.none(), st.text())
CHANGES = st.fixed_dictionaries(
    {"steps": st.integers(1, 200), "batch": st.integers(1, 8), "negative_prompt": st.text()},
    optional={"height": st.integers(1, 4096), "width": st.integers(1, 4096)},
)


@given(st.sampled_from(CLASSES), CHANGES, st.lists(ASSUMED, max_size=3))
def test_any_kind_comes_back_from_its_text(name: str, changes: dict[str, int], assumed: list[Assumption]) -> None:
    described = replace(described_class(name), **changes, assumptions=tuple(assumed))  # type: ignore[arg-type]
    module = build_module(described)
    text = print_module(module)
    again = parse_module(text)
    assert module_hash(again) == module_hash(module)
    assert print_module(again) == text


def chain() -> tuple[PipelineDescription, ...]:
    return describe_texts(CHAIN, "app.py")


def test_a_chain_comes_back_from_its_text_and_says_what_flows() -> None:
    module = build_chain(chain())
    text = print_module(module)
    assert print_module(parse_module(text)) == text
    assert [i.source for i in chain()[1].inputs] == ["base"]
    assert "@base" in text
    assert "@refiner" in text


def test_two_pipelines_of_one_name_are_no_chain() -> None:
    with pytest.raises(DiffoptError, match="two pipelines are named"):
        build_chain([chain()[0], chain()[0]])


def index_of(name: str) -> dict[str, object]:
    parts = described_class(name).components
    return {"_class_name": name, **{part.name: part.class_name.split(".")[-2:] for part in parts}}


def test_a_hub_id_is_read_off_its_snapshot_in_the_cache(tmp_path: Path) -> None:
    folder = tmp_path / "models--a--b" / "snapshots" / "0123"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps(index_of("FluxPipeline")), encoding="utf-8")
    described = describe_hub("a/b", cache_folder=tmp_path)
    assert (described.pipeline_class, described.model) == ("diffusers.FluxPipeline", "a/b")
    with pytest.raises(DiffoptError, match="hf download a/c"):
        describe_hub("a/c", cache_folder=tmp_path)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_lifts_from_a_directory_as_from_its_signature(name: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps(index_of(name)), encoding="utf-8")
    described = describe_directory(tmp_path)
    assert described.pipeline_class == f"diffusers.{name}"
    assert {part.name for part in described.components} == {part.name for part in described_class(name).components}
