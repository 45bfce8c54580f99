"""The scenes of demo:words: a short word and two or three objects, each somewhere in its quarter of the image."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "diamond", "crescent")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
QUARTERS = ("top left", "top right", "bottom left", "bottom right")
BACKGROUNDS = ("white", "black", "gray", "beige", "navy")
LETTERS = "BCDEFHJKLNOPRSTUXZ"
LONGEST = 3
"""Letters of the longest word; the shortest has two."""
WORD = len(SHAPES) + 1
"""The kind of a quarter that holds the word; 0 is empty, 1 and more are shapes."""
LABELS_PER_SCENE = 2 * len(QUARTERS) + LONGEST + 1
"""Length of the label vector: (kind, colour) a quarter, the letters (index + 1, or 0), then the background."""

Split = Literal["train", "calibration", "search", "heldout"]
Labels = npt.NDArray[np.int8]


@dataclass(frozen=True, order=True)
class Item:
    """One object or word: `what` is a shape, or the word in capitals."""

    quarter: str
    what: str
    colour: str


@dataclass(frozen=True)
class Scene:
    """One word and two or three objects in distinct quarters; `items` is kept sorted."""

    items: tuple[Item, ...]
    background: str

    def __post_init__(self) -> None:
        words = [item for item in self.items if item.what not in SHAPES]
        if len(words) != 1 or not 3 <= len(self.items) <= 4 or len({i.quarter for i in self.items}) != len(self.items):
            raise ValueError(f"a scene has one word and two or three objects in distinct quarters, not {self.items}")
        if not 2 <= len(words[0].what) <= LONGEST or not set(words[0].what) <= set(LETTERS):
            raise ValueError(f"a word has two or three letters of {LETTERS}, not {words[0].what!r}")
        object.__setattr__(self, "items", tuple(sorted(self.items)))

    def labels(self) -> Labels:
        """Return the scene as int8 [LABELS_PER_SCENE]."""
        row = np.zeros(LABELS_PER_SCENE, dtype=np.int8)
        for item in self.items:
            slot = 2 * QUARTERS.index(item.quarter)
            row[slot + 1] = COLOURS.index(item.colour)
            row[slot] = SHAPES.index(item.what) + 1 if item.what in SHAPES else WORD
            if item.what not in SHAPES:
                for index, letter in enumerate(item.what):
                    row[2 * len(QUARTERS) + index] = LETTERS.index(letter) + 1
        row[-1] = BACKGROUNDS.index(self.background)
        return row

    def split(self) -> Split:
        """Say which split the scene belongs to; it follows from the scene alone, so splits cannot overlap."""
        bucket = zlib.crc32(self.labels().tobytes()) % 20
        if bucket < 2:
            return "heldout"
        return "calibration" if bucket == 2 else "search" if bucket == 3 else "train"


def random_scene(rng: random.Random) -> Scene:
    """Draw one scene of any split; half of them have three things, half of the words have two letters."""
    quarters = rng.sample(QUARTERS, rng.choice((3, 4)))
    word = "".join(rng.choice(LETTERS) for _ in range(rng.choice((2, LONGEST))))
    whats = [word, *(rng.choice(SHAPES) for _ in quarters[1:])]
    items = tuple(Item(quarter, what, rng.choice(COLOURS)) for quarter, what in zip(quarters, whats, strict=True))
    return Scene(items, rng.choice(BACKGROUNDS))


def random_scenes(count: int, rng: random.Random, *splits: Split) -> list[Scene]:
    """Draw `count` scenes (repeats possible) of the given splits, of every split when none is given."""
    found: list[Scene] = []
    while len(found) < count:
        scene = random_scene(rng)
        if not splits or scene.split() in splits:
            found.append(scene)
    return found
