"""demo:shapes keeps its promises: readable captions, disjoint splits, a sharp scorer, a pipeline that follows prompts."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffopt.bench.models import builtin
from diffopt.bench.models.shapes import SHAPES
from diffopt.bench.models.shapes.captions import caption, parse
from diffopt.bench.models.shapes.drawing import draw
from diffopt.bench.models.shapes.scenes import random_scene, random_scenes, scene_of


@given(st.integers(0, 2**32))
def test_a_caption_reads_back_as_its_scene(seed: int) -> None:
    rng = random.Random(seed)
    scene = random_scene(rng)
    assert parse(caption(scene, rng)) == scene


@given(st.integers(0, 2**32))
def test_labels_read_back_as_their_scene(seed: int) -> None:
    scene = random_scene(random.Random(seed))
    assert scene_of(scene.labels()) == scene


@pytest.mark.parametrize("text", ["", "a red circle on the left, white background", "a large red circle on the left"])
def test_refuses_a_text_that_leaves_something_open(text: str) -> None:
    with pytest.raises(ValueError, match="not a caption"):
        parse(text)


def test_splits_are_disjoint_and_repeatable() -> None:
    scenes = {
        split: {parse(text) for text in SHAPES.prompts(split, 300)} for split in ("calibration", "search", "heldout")
    }
    assert all(len(group) == 300 for group in scenes.values())
    assert len(set().union(*scenes.values())) == 900
    assert SHAPES.prompts("heldout", 5) == SHAPES.prompts("heldout", 300)[:5]
    assert SHAPES.prompts("heldout", 5, seed=1) != SHAPES.prompts("heldout", 5)


def test_training_shows_no_scene_of_another_split() -> None:
    others = {parse(text) for split in ("calibration", "search", "heldout") for text in SHAPES.prompts(split, 300)}
    assert not others & set(random_scenes(5000, random.Random(7), "train"))


def test_refuses_an_unknown_split() -> None:
    with pytest.raises(ValueError, match="calibration, search or heldout"):
        SHAPES.prompts("train", 1)  # type: ignore[arg-type]


def test_finds_the_built_in_model_by_name() -> None:
    assert builtin("demo:shapes") is SHAPES
    assert builtin("demo:nothing") is None


def test_the_weights_are_small_readable_and_free_of_pickles() -> None:
    files = [path for path in Path(SHAPES.directory).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 9_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt"}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in files)
    assert (SHAPES.directory.parent / "scorer.safetensors").stat().st_size <= 1_000_000


@pytest.mark.slow
def test_the_scorer_reads_fresh_held_out_scenes() -> None:
    scenes = random_scenes(300, random.Random(99), "heldout")
    images = draw(np.stack([scene.labels() for scene in scenes]), np.random.default_rng(99))
    prompts = [caption(scene, random.Random(1)) for scene in scenes]
    scorer = SHAPES.scorer()
    assert scorer.correct(images, prompts).mean() >= 0.99
    assert scorer.attributes_correct(images, prompts).mean() >= 0.998
    shuffled = prompts[1:] + prompts[:1]
    assert scorer.correct(images, shuffled).mean() < 0.02
    assert scorer.features(images[:8]).shape == (8, 96)
    twice = images.repeat(2, axis=1).repeat(2, axis=2)
    assert scorer.correct(twice, prompts).mean() >= 0.98


@pytest.mark.slow
def test_the_pipeline_draws_what_prompts_say_in_ten_steps() -> None:
    from diffopt.bench.models.shapes.evaluate import generate
    from diffopt.bench.models.shapes.parts import load_pipeline

    prompts = SHAPES.prompts("search", 24, seed=5)
    images = generate(load_pipeline(), prompts, steps=10)
    assert images.shape == (24, 64, 64, 3)
    assert images.dtype == np.float32
    assert SHAPES.scorer().correct(images, prompts).mean() >= 0.75
