"""Word scenes of demo:words as captions, and read captions back; a word is spelled, letter by letter."""

from __future__ import annotations

import random
import re

from diffopt.bench.models.words.scenes import BACKGROUNDS, COLOURS, LETTERS, QUARTERS, SHAPES, Item, Scene

_ALIASES: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "circle", "disc"),
    "square": ("square", "square", "box"),
    "cross": ("cross", "cross", "plus"),
    "ring": ("ring", "ring", "hoop"),
    "crescent": ("crescent", "crescent", "moon"),
    "purple": ("purple", "purple", "violet"),
    "gray": ("gray", "gray", "grey"),
}
_PLACES = ("at the {}", "at the {}", "in the {} corner")
_SPELLED = ("the word {} in {}", "the letters {} in {}")
_JOINS = (", ", ", ", " and ")
_BACKDROPS = (", {} background", ", {} background", " on a {} background")
_MEANING = {
    **{name: name for names in (SHAPES, COLOURS, BACKGROUNDS) for name in names},
    **{word: name for name, words in _ALIASES.items() for word in words},
}
_CLAUSE = re.compile(
    r"(?:(?:word|letters) (?P<word>(?:[a-z] )+)in (?P<ink>[a-z]+)|an? (?P<colour>[a-z]+) (?P<shape>[a-z]+)) "
    r"(?:at|in) the (?P<quarter>(?:top|bottom) (?:left|right))"
)
_BACKDROP = re.compile(r"(?:, |on a )(\w+) background")


def caption(scene: Scene, rng: random.Random) -> str:
    """Word a scene; order of the things and choice of words come from `rng`."""

    def say(name: str) -> str:
        return rng.choice(_ALIASES.get(name, (name,)))

    def clause(item: Item) -> str:
        if item.what in SHAPES:
            colour = say(item.colour)
            thing = f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {say(item.what)}"
        else:
            thing = rng.choice(_SPELLED).format(" ".join(item.what.lower()), say(item.colour))
        return f"{thing} {rng.choice(_PLACES).format(item.quarter)}"

    body = rng.choice(_JOINS).join(clause(item) for item in rng.sample(scene.items, len(scene.items)))
    return body + rng.choice(_BACKDROPS).format(say(scene.background))


def parse(text: str) -> Scene:
    """Return the scene that a caption describes; the inverse of `caption`.

    Raises ValueError when the text does not name one word, two or three objects with their quarters, and a background.
    """
    items = []
    backdrop = _BACKDROP.search(text.lower())
    try:
        for found in _CLAUSE.finditer(text.lower()):
            if found["word"]:
                items.append(Item(found["quarter"], found["word"].replace(" ", "").upper(), _MEANING[found["ink"]]))
            else:
                items.append(Item(found["quarter"], _MEANING[found["shape"]], _MEANING[found["colour"]]))
        if backdrop is None:
            raise ValueError("no background")
        return Scene(tuple(items), _MEANING[backdrop[1]])
    except (KeyError, ValueError) as error:
        raise ValueError(f"not a caption of demo:words: {text!r} ({error})") from None


def words() -> list[str]:
    """Return every word and mark that a caption can hold, sorted; the tokenizer gives each one token."""
    phrases = [phrase for group in _ALIASES.values() for phrase in group]
    phrases += [*_PLACES, *_SPELLED, *_JOINS, *_BACKDROPS, *SHAPES, *COLOURS, *QUARTERS, *BACKGROUNDS, "a an ,"]
    found = {word for phrase in phrases for word in re.findall(r"[a-z]+|,", phrase)}
    return sorted(found | set(LETTERS.lower()))
