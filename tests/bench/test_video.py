from __future__ import annotations

import numpy as np
import pytest

from diffopt.bench.video import Videos, compare_videos, flicker


def moving(count: int = 2, frames: int = 5) -> Videos:
    rng = np.random.default_rng(0)
    still = rng.random((count, 1, 16, 16, 3))
    shifts = [np.roll(still, step, axis=2) for step in range(frames)]
    return np.concatenate(shifts, axis=1).astype(np.float32) * np.float32(0.8)


def test_equal_videos_are_equal_and_flicker_as_much_as_they_move() -> None:
    videos = moving()
    found = compare_videos(videos, videos)
    assert (found.psnr_worst_frame, found.added_flicker) == (120.0, 0.0)
    assert found.flicker == found.baseline_flicker > 0


def test_an_error_that_stays_is_no_flicker_and_one_that_alternates_is() -> None:
    videos = moving()
    steady = videos + np.float32(0.02)
    signs = np.asarray([1, -1, 1, -1, 1], np.float32).reshape(1, 5, 1, 1, 1)
    alternating = videos + np.float32(0.02) * signs
    first, second = compare_videos(steady, videos), compare_videos(alternating, videos)
    assert first.psnr_median == pytest.approx(second.psnr_median, abs=0.1)
    assert first.added_flicker == pytest.approx(0.0, abs=1e-3)
    assert second.added_flicker == pytest.approx(255 * 0.04, rel=0.01)


def test_one_bad_frame_shows_in_the_worst_and_not_in_the_median() -> None:
    videos = moving()
    bad = videos.copy()
    bad[0, 2] = 1 - bad[0, 2]
    found = compare_videos(bad, videos)
    assert found.psnr_median == 120.0
    assert found.psnr_worst_frame < 15


def test_flicker_of_a_still_is_zero() -> None:
    assert flicker(np.full((1, 3, 4, 4, 3), 0.5, np.float32)).tolist() == [0.0]


@pytest.mark.parametrize("shape", [(2, 1, 4, 4, 3), (2, 4, 4, 3)])
def test_what_is_no_video_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="videos of shapes"):
        compare_videos(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
