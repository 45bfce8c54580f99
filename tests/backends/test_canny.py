from __future__ import annotations

import numpy as np

from diffopt.backends.canny import as_condition, canny


def test_a_square_has_its_outline_for_edges_and_nothing_inside() -> None:
    image = np.zeros((1, 20, 20, 3), dtype=np.uint8)
    image[0, 5:15, 5:15] = (200, 30, 30)
    (edges,) = canny(image)
    assert edges.sum() in range(34, 41)
    assert not edges[8:12, 8:12].any()
    assert edges[5:15].any(axis=1).all()
    assert not edges[:3].any()


def test_a_weak_edge_counts_only_where_it_goes_on_from_a_strong_one() -> None:
    image = np.zeros((2, 12, 30, 3), dtype=np.uint8)
    image[:, 6:, :] = 40
    assert not canny(image[:1]).any()
    image[1, 6:, :10] = 200
    assert canny(image[1:])[0][5:7, 12:].any(axis=0).all()


def test_colours_of_equal_brightness_have_an_edge_between_them() -> None:
    image = np.zeros((1, 10, 10, 3), dtype=np.uint8)
    image[0, :, :5], image[0, :, 5:] = (120, 0, 0), (0, 120, 0)
    assert canny(image)[0][1:-1].any(axis=1).all()


def test_images_are_looked_at_one_by_one() -> None:
    images = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), dtype=np.uint8)
    together = canny(images)
    assert all(np.array_equal(together[i], canny(images[i : i + 1])[0]) for i in range(3))
    assert as_condition(together).shape == (3, 16, 16, 3)
    assert set(np.unique(as_condition(together))) <= {0, 255}
