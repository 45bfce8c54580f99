"""How programs become rows of numbers: parts that are there or not, their options, and all features on one scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from diffopt.search.facts import WORK

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """A pass as the model sees it.

    Args:
        name: its features are ``name``, ``name.x`` and ``log name.x``.
        usual: PSNR in dB that its kind of pass leaves, before anything is measured; and how sure that is.
        known: features of the instances there are, so that the scale of each option is known.
    """

    name: str
    usual: float = 60.0
    unsure: float = 17.0
    known: tuple[Mapping[str, float], ...] = ()


@dataclass(frozen=True)
class Rows:
    """Programs as numbers (n rows each).

    Args:
        present: which parts there are (n × parts).
        options: the features of each part (n × width), zero where the part is not there.
        work: logarithm of how much a program does, less the baseline's; no column where it is not known.
        scaled: all features, each with mean 0 and deviation 1 over the measured programs.
        strange: 1 for a program with a feature that was never seen, its order of passes apart, else 0.
    """

    present: Array
    options: tuple[Array, ...]
    work: Array
    scaled: Array
    strange: Array

    def __len__(self) -> int:
        return len(self.present)


@dataclass(frozen=True)
class Design:
    """What the measured programs differ in; made by `design`.

    Args:
        names: features that differ among the measured programs; others are not known to matter.
        seen: all features that occur in a measured program.
        within: the features of each part, with their mean and deviation over its instances.
        work: the baseline's `WORK`, where it is known.
    """

    names: tuple[str, ...]
    seen: frozenset[str]
    parts: tuple[Part, ...]
    work: float | None
    within: tuple[tuple[tuple[str, float, float], ...], ...]
    centre: Array
    scale: Array

    def rows(self, features: Sequence[Mapping[str, float]]) -> Rows:
        """Return programs as numbers."""
        present = matrix(features, [part.name for part in self.parts])
        options = []
        for at, columns in enumerate(self.within):
            centre, scale = np.array([c for _, c, _ in columns]), np.array([s for _, _, s in columns])
            raw = matrix(features, [name for name, _, _ in columns])
            options.append((raw - centre) / scale * present[:, at : at + 1])
        work = matrix(features, () if self.work is None else (WORK,)) - (self.work or 0.0)
        scaled = (matrix(features, self.names) - self.centre) / self.scale
        strange = np.array([_strange(f.keys() - self.seen) for f in features], dtype=np.float64)
        return Rows(present, tuple(options), work, scaled, strange)


def design(features: Sequence[Mapping[str, float]], parts: Sequence[Part]) -> Design:
    """Read off what some programs differ in; the first is the baseline."""
    known = frozenset(name for part in parts for f in part.known for name in f)
    seen = sorted({name for f in features for name in f})
    raw = matrix(features, seen)
    varying = np.ptp(raw, axis=0) > 0
    names = tuple(name for name, varies in zip(seen, varying, strict=True) if varies)
    centre, scale = raw[:, varying].mean(axis=0), raw[:, varying].std(axis=0)
    held = tuple(part for part in parts if part.known or part.name in names)
    within = tuple(_within((*part.known, *features), part.name) for part in held)
    return Design(names, known | frozenset(seen), held, features[0].get(WORK), within, centre, scale)


def matrix(features: Sequence[Mapping[str, float]], names: Sequence[str]) -> Array:
    """Return features as a matrix, zero where one is missing."""
    values = [[f.get(name, 0.0) for name in names] for f in features]
    return np.array(values, dtype=np.float64).reshape(len(features), len(names))


def _strange(new: Iterable[str]) -> float:
    """Return whether something is new: once, since a new part is unsure in itself, and orders are the model's to guess."""
    return float(any(" < " not in name for name in new))


def _within(features: Sequence[Mapping[str, float]], part: str) -> tuple[tuple[str, float, float], ...]:
    holding = [f for f in features if part in f]
    own = sorted({name for f in holding for name in f if name.startswith((f"{part}.", f"log {part}."))})
    return tuple(
        (name, float(column.mean()), float(column.std()))
        for name, column in zip(own, matrix(holding, own).T, strict=True)
        if np.ptp(column) > 0
    )
