"""demo:words keeps its promises: captions that read back, disjoint splits, things that stay in their quarter."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffopt.bench.models.words.captions import caption, parse
from diffopt.bench.models.words.drawing import draw
from diffopt.bench.models.words.scenes import LETTERS, Item, Scene, random_scene, random_scenes
from diffopt.bench.models.words.tokenizer import TOKENS, new_tokenizer


@given(st.integers(0, 2**32))
def test_a_caption_reads_back_as_its_scene(seed: int) -> None:
    rng = random.Random(seed)
    scene = random_scene(rng)
    assert parse(caption(scene, rng)) == scene


@pytest.mark.parametrize(
    "text", ["", "a red star at the top left, white background", "the word b o in red at the top left"]
)
def test_refuses_a_text_that_leaves_something_open(text: str) -> None:
    with pytest.raises(ValueError, match="not a caption"):
        parse(text)


def test_refuses_a_scene_of_two_words() -> None:
    items = (Item("top left", "BO", "red"), Item("top right", "NO", "red"), Item("bottom left", "ring", "red"))
    with pytest.raises(ValueError, match="one word"):
        Scene(items, "white")


def test_every_caption_fits_its_tokens_and_every_letter_is_one() -> None:
    tokenizer, rng = new_tokenizer(), random.Random(3)
    captions = [caption(scene, rng) for scene in random_scenes(300, rng)]
    assert max(len(tokens) for tokens in tokenizer(captions).input_ids) <= TOKENS
    assert all(len(tokenizer(letter.lower()).input_ids) == 3 for letter in LETTERS)


def test_what_a_quarter_shows_depends_on_that_quarter_alone() -> None:
    one = Scene(
        (Item("top left", "BOX", "red"), Item("top right", "ring", "blue"), Item("bottom left", "star", "pink")),
        "white",
    )
    two = Scene(
        (Item("top left", "BOX", "red"), Item("top right", "ring", "blue"), Item("bottom left", "cross", "red")),
        "white",
    )
    first, second = (draw(scene.labels()[None], np.random.default_rng(5))[0] for scene in (one, two))
    assert np.array_equal(first[:32], second[:32])
    assert not np.array_equal(first[32:], second[32:])
    assert np.array_equal(first[32:, 32:], np.full((32, 32, 3), first[63, 63], dtype=np.float32))


def test_splits_are_disjoint() -> None:
    scenes = random_scenes(2000, random.Random(1))
    assert {scene.split() for scene in scenes} == {"train", "calibration", "search", "heldout"}
    assert all(parse(caption(scene, random.Random(2))).split() == scene.split() for scene in scenes[:200])
