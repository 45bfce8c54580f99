"""What a pipeline is measured on: prompts for the search, other prompts for the final claim, and sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from diffopt.ir.errors import DiffoptError

LONGEST_PROMPT: Final = 2000
FEWEST_PROMPTS: Final = 4

DEFAULT_PROMPTS: Final = (
    "a red bicycle leaning against a brick wall",
    "a bowl of ripe strawberries on a wooden table",
    "a lighthouse on a cliff at sunset",
    "a black cat asleep on a windowsill",
    "a crowded street market in the rain",
    "a snow-covered mountain under a clear sky",
    "a portrait of an old fisherman with a grey beard",
    "a steam train crossing a stone bridge",
    "a glass of water with a slice of lemon",
    "two children flying a kite on a beach",
    "a small wooden cabin in a pine forest",
    "a bouquet of yellow tulips in a blue vase",
    "an astronaut walking through a desert",
    "a busy harbour with fishing boats in the morning",
    "a close-up of a bee on a lavender flower",
    "a red barn in a field of wheat",
    "a watercolour painting of a canal in Venice",
    "a white horse galloping through shallow water",
    "an empty library with tall wooden shelves",
    "a plate of sushi on a dark slate",
    "a medieval castle on a hill, fog in the valley",
    "a green parrot sitting on a branch",
    "a city skyline at night with reflections in a river",
    "a potter shaping clay on a wheel",
    "an old map with a brass compass lying on it",
    "a hot air balloon over rolling hills",
    "a chef slicing vegetables in a bright kitchen",
    "a stack of colourful books beside a cup of coffee",
    "a waterfall in a tropical forest",
    "a vintage car parked in front of a diner",
    "a fox standing in fresh snow",
    "a modern glass house by a lake",
    "a violin resting on sheet music",
    "a narrow alley with laundry hanging between houses",
    "a field of sunflowers under dark storm clouds",
    "a robot watering plants in a greenhouse",
    "a basket of bread at a farmers' market",
    "a wooden sailing ship on rough sea",
    "a child's drawing of a house and a tree",
    "a stone fountain in a quiet courtyard",
)
"""Plain captions for a model nobody gave prompts for: objects, places, people, animals, styles and light."""


@dataclass(frozen=True)
class Workload:
    """Prompts and sizes a pipeline is measured with; the defaults of its call, not of this class, decide the rest.

    `prompts` guide the search; `heldout` decides the final claim, and neither search nor planner ever sees them.
    `batch` prompts go into one call. Height and width are of an image, or of each of the `frames` of a video, which are
    known once the baseline has made one (0 until then).
    """

    prompts: tuple[str, ...]
    heldout: tuple[str, ...]
    seed: int
    height: int
    width: int
    batch: int = 1
    frames: int = 0

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.batch) < 1:
            raise DiffoptError(f"a workload of {self.height}x{self.width} at batch {self.batch}", where="workload")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise DiffoptError(f"a workload of seed {self.seed!r}", where="workload", hint="a seed is 0 or more")
        for name, prompts in (("search", self.prompts), ("held-out", self.heldout)):
            if not prompts:
                raise DiffoptError(f"there are no {name} prompts", where="workload", hint="give more prompts")
        if shared := set(self.prompts) & set(self.heldout):
            raise DiffoptError(f"{len(shared)} prompts are both in search and held out", where="workload")

    def split(self, name: str) -> tuple[str, ...]:
        """Return the prompts of "search" or "heldout"."""
        return {"search": self.prompts, "heldout": self.heldout}[name]

    def draws(self, name: str, secret: np.random.Generator) -> Callable[[], tuple[list[str], list[int]]]:
        """Return what draws a batch of prompts of a split and secret seeds for them, other ones each time."""
        prompts = self.split(name)

        def draw() -> tuple[list[str], list[int]]:
            chosen = secret.integers(len(prompts), size=self.batch)
            seeds = secret.integers(1 << 31, size=self.batch)
            return [prompts[index] for index in chosen], [int(seed) for seed in seeds]

        return draw

    def seeds(self, name: str, *, draw: int = 0) -> tuple[int, ...]:
        """Return the fixed seeds of a split's images, one a prompt; another `draw` gives unrelated ones."""
        text = f"{self.seed} {name} {draw}".encode()
        rng = np.random.default_rng(list(hashlib.sha256(text).digest()))
        return tuple(int(seed) for seed in rng.integers(1 << 31, size=len(self.split(name))))


def load_prompts(path: Path) -> tuple[str, ...]:
    """Read prompts from a UTF-8 text file, one a line; empty lines and lines starting with # are left out.

    Raises:
        DiffoptError: the file cannot be read, or a line is too long or occurs twice, or there are too few.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DiffoptError(f"cannot read the prompts: {reason}", where=str(path)) from error
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        prompt = line.strip()
        if not prompt or prompt.startswith("#"):
            continue
        if len(prompt) > LONGEST_PROMPT:
            raise DiffoptError(f"a prompt of {len(prompt)} characters", f"{path}:{number}", f"{LONGEST_PROMPT} at most")
        if prompt in found:
            raise DiffoptError(f"the same prompt as in line {found[prompt]}", f"{path}:{number}", "remove one of them")
        found[prompt] = number
    if len(found) < FEWEST_PROMPTS:
        raise DiffoptError(f"{len(found)} prompts", str(path), f"give {FEWEST_PROMPTS} at least, one a line")
    return tuple(found)


def split_prompts(
    prompts: Sequence[str], *, seed: int, heldout: float = 0.5
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split prompts at random into those for the search and those held out; the two are disjoint.

    Args:
        prompts: distinct, two at least.
        seed: decides the split.
        heldout: the share held out; each side gets one prompt at least.
    """
    order = np.random.default_rng(seed).permutation(len(prompts))
    count = min(max(round(len(prompts) * heldout), 1), len(prompts) - 1)
    return tuple(prompts[index] for index in order[count:]), tuple(prompts[index] for index in order[:count])


def default_workload(*, height: int, width: int, seed: int = 0, batch: int = 1) -> Workload:
    """Return the workload of a model that brings no prompts of its own: plain captions, half of them held out."""
    search, heldout = split_prompts(DEFAULT_PROMPTS, seed=seed)
    return Workload(search, heldout, seed, height, width, batch)
