"""Draw many scenes with their captions in processes of their own, the same for a seed however many there are."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

CHUNK = 4000
WORDINGS = 3


@dataclass(frozen=True)
class Drawn:
    """Images uint8 [n, h, w, 3], label vectors int8 [n, m], and WORDINGS captions an image, one after the other."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int8]
    captions: list[str]

    def save(self, folder: Path) -> None:
        """Write the three parts into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "images.npy", self.images)
        np.save(folder / "labels.npy", self.labels)
        (folder / "captions.txt").write_text("\n".join(self.captions), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Drawn:
        """Read what `save` wrote; the images stay on disk until they are used."""
        captions = (folder / "captions.txt").read_text(encoding="utf-8").split("\n")
        return cls(np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "labels.npy"), captions)


Draw = Callable[[int, int], Drawn]


def draw_shapes(count: int, seed: int) -> Drawn:
    """Draw training scenes of demo:shapes."""
    from diffopt.bench.models.shapes.captions import caption
    from diffopt.bench.models.shapes.drawing import draw
    from diffopt.bench.models.shapes.scenes import random_scenes

    rng = random.Random(seed)
    scenes = random_scenes(count, rng, "train")
    labels = np.stack([scene.labels() for scene in scenes])
    images = np.rint(draw(labels, np.random.default_rng(seed)) * 255).astype(np.uint8)
    return Drawn(images, labels, [caption(scene, rng) for scene in scenes for _ in range(WORDINGS)])


def draw_single(count: int, seed: int) -> Drawn:
    """Draw scenes of one object, every one of the 960 about equally often."""
    from diffopt.bench.models.shapes.drawing import draw
    from diffopt.bench.models.shapes_dit.classes import CLASSES, phrase, scene_of_class

    numbers = np.random.default_rng(seed).integers(CLASSES, size=count)
    scenes = [scene_of_class(int(number)) for number in numbers]
    labels = np.stack([scene.labels() for scene in scenes])
    images = np.rint(draw(labels, np.random.default_rng(seed)) * 255).astype(np.uint8)
    return Drawn(images, labels, [phrase(int(number)) for number in numbers])


def draw_words(count: int, seed: int) -> Drawn:
    """Draw training scenes of demo:words."""
    from diffopt.bench.models.words.captions import caption
    from diffopt.bench.models.words.drawing import draw
    from diffopt.bench.models.words.scenes import random_scenes

    rng = random.Random(seed)
    scenes = random_scenes(count, rng, "train")
    labels = np.stack([scene.labels() for scene in scenes])
    images = np.rint(draw(labels, np.random.default_rng(seed)) * 255).astype(np.uint8)
    return Drawn(images, labels, [caption(scene, rng) for scene in scenes for _ in range(WORDINGS)])


def drawn_in_parallel(draw: Draw, count: int, seed: int, workers: int) -> Drawn:
    """Draw `count` examples in chunks of 4,000, each from a seed of its own."""
    sizes = [min(CHUNK, count - start) for start in range(0, count, CHUNK)]
    seeds = [1000 * seed + index for index in range(len(sizes))]
    if workers == 1:
        parts = list(map(draw, sizes, seeds))
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(draw, sizes, seeds))
    return Drawn(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        [text for part in parts for text in part.captions],
    )
