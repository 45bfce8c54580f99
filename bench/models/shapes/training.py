"""What every training stage uses: the log, the training set, the learning rate."""

from __future__ import annotations

import math
import platform
import random
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffopt.bench.models.shapes.drawing import draw
from diffopt.bench.models.shapes.scenes import Labels, Scene, Split, random_scenes

LOG = Path(__file__).resolve().parent / "train.log"
WORK = Path("/tmp/diffopt-shapes")
"""Where unfinished stages keep their state; safe to delete."""


@dataclass(frozen=True)
class Drawn:
    """Scenes with their labels int8 [n, LABELS_PER_SCENE] and images uint8 [n, 64, 64, 3]."""

    scenes: list[Scene]
    labels: Labels
    images: npt.NDArray[np.uint8]


def drawn(count: int, seed: int, *splits: Split) -> Drawn:
    """Draw `count` random scenes of the splits (of every split when none is given)."""
    scenes = random_scenes(count, random.Random(seed), *splits)
    labels = np.stack([scene.labels() for scene in scenes])
    rng = np.random.default_rng(seed)
    images = np.empty((count, 64, 64, 3), dtype=np.uint8)
    for start in range(0, count, 2000):
        images[start : start + 2000] = np.rint(draw(labels[start : start + 2000], rng) * 255)
    return Drawn(scenes, labels, images)


def cosine(step: int, steps: int, warmup: int = 100, floor: float = 0.01) -> float:
    """Return the learning-rate factor at `step` of `steps`: linear warm-up, then a cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))


def log(stage: str, text: str) -> None:
    """Append one line to train.log and print it."""
    if not LOG.exists():
        versions = " ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers", "numpy"))
        LOG.write_text(f"# demo:shapes, python {platform.python_version()}, {versions}, {_machine()}\n")
    line = f"{time.strftime('%H:%M:%S', time.gmtime())} {stage:9} {text}"
    with LOG.open("a") as file:
        file.write(line + "\n")
    print(line, flush=True)


def _machine() -> str:
    import os

    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}, CPU only, beside other work"
