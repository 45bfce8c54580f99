"""Word scenes as captions, and read captions back."""

from __future__ import annotations

import random
import re

from diffopt.bench.models.shapes.scenes import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES, Item, Scene

_WORDINGS: dict[str, tuple[str, ...]] = {
    "small": ("small", "small", "little", "tiny"),
    "large": ("large", "large", "big", "huge"),
    "circle": ("circle", "circle", "disc"),
    "square": ("square", "square", "box"),
    "cross": ("cross", "cross", "plus"),
    "ring": ("ring", "ring", "hoop"),
    "purple": ("purple", "purple", "violet"),
    "gray": ("gray", "gray", "grey"),
    "left": ("on the left", "on the left", "at the left", "on the left side"),
    "right": ("on the right", "on the right", "at the right", "on the right side"),
    "top": ("at the top", "at the top", "on top", "near the top"),
    "bottom": ("at the bottom", "at the bottom", "near the bottom"),
    "center": ("in the center", "in the center", "in the middle", "at the center"),
}
_OPENINGS = ("", "", "", "a picture of ", "a drawing of ", "an image of ")
_JOINS = (" and ", " and ", ", ", " with ", " next to ")
_BACKDROPS = (", {} background", ", {} background", " on a {} background", " against a {} background", ", plain {}")

_MEANING = {
    **{name: name for names in (SHAPES, COLOURS, SIZES, POSITIONS, BACKGROUNDS) for name in names},
    **{word: name for name, words in _WORDINGS.items() if name not in POSITIONS for word in words},
    "middle": "center",
}


def caption(scene: Scene, rng: random.Random) -> str:
    """Word a scene; order of the objects and choice of words come from `rng`."""

    def say(name: str) -> str:
        return rng.choice(_WORDINGS.get(name, (name,)))

    def clause(item: Item, place_first: bool) -> str:
        thing = f"{say(item.size)} {say(item.colour)} {say(item.shape)}"
        article = "an" if thing[0] in "aeiou" else "a"
        return f"{say(item.position)} {article} {thing}" if place_first else f"{article} {thing} {say(item.position)}"

    items = rng.sample(scene.items, len(scene.items))
    opening = rng.choice(_OPENINGS)
    place_first = not opening and rng.random() < 0.15
    body = rng.choice(_JOINS).join(clause(item, place_first) for item in items)
    return opening + body + rng.choice(_BACKDROPS).format(say(scene.background))


def parse(text: str) -> Scene:
    """Return the scene that a caption describes; the inverse of `caption`.

    Raises ValueError when the text does not name each object's size, colour, shape and position once, and one
    background.
    """
    named = [_MEANING[word] for word in re.findall(r"[a-z]+", text.lower()) if word in _MEANING]
    positions, shapes, colours, sizes, backgrounds = (
        [name for name in named if name in names] for names in (POSITIONS, SHAPES, COLOURS, SIZES, BACKGROUNDS)
    )
    if not len(positions) == len(shapes) == len(colours) == len(sizes) or len(backgrounds) != 1:
        raise ValueError(f"not a caption of demo:shapes: {text!r}")
    items = tuple(Item(*parts) for parts in zip(positions, shapes, colours, sizes, strict=True))
    return Scene(items, backgrounds[0])


def words() -> list[str]:
    """Return every word and mark that a caption can hold, sorted; the tokenizer gives each one token."""
    phrases = [phrase for group in _WORDINGS.values() for phrase in group]
    phrases += [*_OPENINGS, *_JOINS, *_BACKDROPS, *SHAPES, *COLOURS, *SIZES, *POSITIONS, *BACKGROUNDS, "a an the ,"]
    return sorted({word for phrase in phrases for word in re.findall(r"[a-z]+|,", phrase)})
