from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffopt.bench.images import fault, repeats, save_pairs, to_bytes
from diffopt.bench.references import References
from diffopt.bench.resident import Images


def pictures(count: int = 2) -> Images:
    return np.random.default_rng(0).random((count, 8, 8, 3), dtype=np.float32)


def test_pictures_are_fine() -> None:
    assert fault(pictures(), count=2, height=8, width=8) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images[:1], "shape"),
        (lambda images: images[:, :4], "shape"),
        (lambda images: np.where(images > 0.9, np.nan, images), "NaN"),
        (lambda images: images * 255, "want 0 to 1"),
        (lambda images: images - 0.5, "want 0 to 1"),
        (lambda images: np.full_like(images, 0.5), "flat"),
        (lambda images: np.broadcast_to(np.array([0.1, 0.5, 0.9], np.float32), images.shape), "flat"),
    ],
)
def test_what_is_no_picture_is_named(change: object, message: str) -> None:
    assert callable(change)
    assert message in str(fault(change(pictures()), count=2, height=8, width=8))


def test_equal_images_are_noticed() -> None:
    images = pictures(3)
    assert not repeats(images)
    images[2] = images[0]
    assert repeats(images)


def test_pairs_are_written_with_what_they_show(tmp_path: Path) -> None:
    images = pictures()
    known = References(("a", "b"), (1, 2), images, images)
    save_pairs(tmp_path / "out", images, known, [40.0, 41.0])
    entries = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert [(entry["prompt"], entry["seed"], entry["psnr"]) for entry in entries] == [("a", 1, 40.0), ("b", 2, 41.0)]
    with Image.open(tmp_path / "out" / entries[1]["candidate"]) as picture:
        assert np.array_equal(np.asarray(picture), to_bytes(images[1]))
