"""The 960 classes of demo:shapes-dit: one object in every shape, colour, size and position, on white or on black."""

from __future__ import annotations

from diffopt.bench.models.shapes.scenes import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES, Item, Scene

_BACKGROUNDS = BACKGROUNDS[:2]
_AXES = (POSITIONS, SHAPES, COLOURS, SIZES, _BACKGROUNDS)
CLASSES = len(POSITIONS) * len(SHAPES) * len(COLOURS) * len(SIZES) * len(_BACKGROUNDS)
NULL = 1000
"""The class of no condition, which `DiTPipeline` fixes."""
_PLACES = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}


def scene_of_class(number: int) -> Scene:
    """Return the scene that class `number` stands for.

    Raises:
        IndexError: there are 960 classes.
    """
    if not 0 <= number < CLASSES:
        raise IndexError(f"no class {number}")
    names = []
    for axis in reversed(_AXES):
        number, index = divmod(number, len(axis))
        names.append(axis[index])
    background, size, colour, shape, position = names
    return Scene((Item(position, shape, colour, size),), background)


def phrase(number: int) -> str:
    """Name a class in words that `captions.parse` reads; without a comma, which ends a label in `DiTPipeline`."""
    scene = scene_of_class(number)
    (item,) = scene.items
    place = _PLACES.get(item.position, "in the center")
    article = "an" if item.size[0] in "aeiou" else "a"
    return f"{article} {item.size} {item.colour} {item.shape} {place} on a {scene.background} background"


def labels() -> dict[int, str]:
    """Return the name of every class by its number."""
    return {number: phrase(number) for number in range(CLASSES)}


def attributes() -> list[tuple[int, ...]]:
    """Return the attributes of every class, each attribute of each axis a number of its own."""
    starts = [sum(len(axis) for axis in _AXES[:index]) for index in range(len(_AXES))]
    rows = []
    for number in range(CLASSES):
        row = []
        for start, axis in zip(reversed(starts), reversed(_AXES), strict=True):
            number, index = divmod(number, len(axis))
            row.append(start + index)
        rows.append(tuple(row))
    return rows
