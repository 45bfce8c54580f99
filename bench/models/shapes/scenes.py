"""The scenes of demo:shapes: one or two objects on a plain background, and the splits they fall into."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SIZES = ("small", "large")
POSITIONS = ("left", "right", "top", "bottom", "center")
BACKGROUNDS = ("white", "black", "gray", "beige", "navy")

LABELS_PER_SCENE = 3 * len(POSITIONS) + 1
"""Length of the label vector: (shape + 1 or 0 when empty, colour, size) a position, then the background."""

Split = Literal["train", "calibration", "search", "heldout"]
Labels = npt.NDArray[np.int8]


@dataclass(frozen=True, order=True)
class Item:
    """One object of a scene, by attribute name."""

    position: str
    shape: str
    colour: str
    size: str


@dataclass(frozen=True)
class Scene:
    """One or two objects at distinct positions; `items` is kept sorted, so equal scenes compare equal."""

    items: tuple[Item, ...]
    background: str

    def __post_init__(self) -> None:
        if not 1 <= len(self.items) <= 2 or len({item.position for item in self.items}) != len(self.items):
            raise ValueError(f"a scene has one or two objects at distinct positions, not {self.items}")
        object.__setattr__(self, "items", tuple(sorted(self.items)))

    def labels(self) -> Labels:
        """Return the scene as int8 [LABELS_PER_SCENE]."""
        row = np.zeros(LABELS_PER_SCENE, dtype=np.int8)
        for item in self.items:
            slot = 3 * POSITIONS.index(item.position)
            row[slot : slot + 3] = SHAPES.index(item.shape) + 1, COLOURS.index(item.colour), SIZES.index(item.size)
        row[-1] = BACKGROUNDS.index(self.background)
        return row

    def bucket(self) -> int:
        """Return a number from 0 to 19 that follows from the scene alone."""
        return zlib.crc32(self.labels().tobytes()) % 20

    def split(self) -> Split:
        """Say which split the scene belongs to; it follows from the scene alone, so splits cannot overlap."""
        bucket = self.bucket()
        if bucket < 2:
            return "heldout"
        return "calibration" if bucket == 2 else "search" if bucket == 3 else "train"


def scene_of(labels: npt.NDArray[np.integer]) -> Scene:
    """Return the scene that a label vector [LABELS_PER_SCENE] describes."""
    items = tuple(
        Item(position, SHAPES[labels[3 * slot] - 1], COLOURS[labels[3 * slot + 1]], SIZES[labels[3 * slot + 2]])
        for slot, position in enumerate(POSITIONS)
        if labels[3 * slot] > 0
    )
    return Scene(items, BACKGROUNDS[labels[-1]])


def random_scene(rng: random.Random) -> Scene:
    """Draw one scene of any split; three in ten have a single object."""
    positions = rng.sample(POSITIONS, 1 if rng.random() < 0.3 else 2)
    items = tuple(Item(place, rng.choice(SHAPES), rng.choice(COLOURS), rng.choice(SIZES)) for place in positions)
    return Scene(items, rng.choice(BACKGROUNDS))


def random_scenes(count: int, rng: random.Random, *splits: Split) -> list[Scene]:
    """Draw `count` scenes (repeats possible) of the given splits, of every split when none is given."""

    def wanted() -> Iterator[Scene]:
        while True:
            scene = random_scene(rng)
            if not splits or scene.split() in splits:
                yield scene

    return list(islice(wanted(), count))
