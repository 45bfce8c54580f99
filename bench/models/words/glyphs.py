"""The letters of demo:words, five by seven dots each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffopt.bench.models.words.scenes import LETTERS, LONGEST

WIDTH, HEIGHT, GAP = 5, 7, 1

_ROWS = {
    "B": "11110 10001 10001 11110 10001 10001 11110",
    "C": "01110 10001 10000 10000 10000 10001 01110",
    "D": "11110 10001 10001 10001 10001 10001 11110",
    "E": "11111 10000 10000 11110 10000 10000 11111",
    "F": "11111 10000 10000 11110 10000 10000 10000",
    "H": "10001 10001 10001 11111 10001 10001 10001",
    "J": "00111 00010 00010 00010 00010 10010 01100",
    "K": "10001 10010 10100 11000 10100 10010 10001",
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "N": "10001 11001 10101 10011 10001 10001 10001",
    "O": "01110 10001 10001 10001 10001 10001 01110",
    "P": "11110 10001 10001 11110 10000 10000 10000",
    "R": "11110 10001 10001 11110 10100 10010 10001",
    "S": "01111 10000 10000 01110 00001 00001 11110",
    "T": "11111 00100 00100 00100 00100 00100 00100",
    "U": "10001 10001 10001 10001 10001 10001 01110",
    "X": "10001 10001 01010 00100 01010 10001 10001",
    "Z": "11111 00001 00010 00100 01000 10000 11111",
}
GLYPHS: npt.NDArray[np.float32] = np.array(
    [[[0] * WIDTH] * HEIGHT, *([[int(dot) for dot in row] for row in _ROWS[letter].split()] for letter in LETTERS)],
    dtype=np.float32,
)
"""[len(LETTERS) + 1, 7, 5]; the first is blank."""


def dots(letters: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """Return words [n, 3] of letter numbers (0 is none) as dots [n, 7, 17], from the left."""
    page = np.zeros((len(letters), HEIGHT, LONGEST * (WIDTH + GAP) - GAP), dtype=np.float32)
    for index in range(LONGEST):
        start = index * (WIDTH + GAP)
        page[:, :, start : start + WIDTH] = GLYPHS[letters[:, index]]
    return page
