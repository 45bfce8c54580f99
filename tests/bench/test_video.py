from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffopt.bench.evaluate import Evaluator, Failed, Measured, Program
from diffopt.bench.fidelity import compare
from diffopt.bench.forkserver import ForkServer
from diffopt.bench.outcome import Fidelity
from diffopt.bench.resident import Images
from diffopt.bench.video import flicker
from diffopt.bench.workload import Workload

FRAMES = 5


def moving(count: int = 2) -> Images:
    rng = np.random.default_rng(0)
    still = rng.random((count, 1, 16, 16, 3))
    shifts = [np.roll(still, step, axis=2) for step in range(FRAMES)]
    return np.concatenate(shifts, axis=1).astype(np.float32) * np.float32(0.8)


def compared(videos: Images, references: Images) -> Fidelity:
    stacked = [part.reshape(len(part), -1, *part.shape[3:]) for part in (videos, references, references[::-1])]
    return compare(
        *stacked,
        prompts=["a", "b"], seeds=[0, 1], scorer=None, rng=np.random.default_rng(0), frames=FRAMES,
    )  # fmt: skip


def test_equal_videos_are_equal_and_flicker_as_much_as_they_move() -> None:
    found = compared(moving(), moving())
    assert (found.psnr_worst, found.added_flicker, found.frames) == (120.0, 0.0, FRAMES)
    assert found.flicker is not None
    assert found.flicker == found.baseline_flicker
    assert found.flicker > 0


def test_an_error_that_stays_is_no_flicker_and_one_that_alternates_is() -> None:
    videos = moving()
    signs = np.asarray([1, -1, 1, -1, 1], np.float32).reshape(1, 5, 1, 1, 1)
    first, second = (compared(videos + np.float32(0.02) * change, videos) for change in (np.ones_like(signs), signs))
    assert first.psnr_median == pytest.approx(second.psnr_median, abs=0.1)
    assert first.added_flicker == pytest.approx(0.0, abs=1e-3)
    assert second.added_flicker == pytest.approx(255 * 0.04, rel=0.01)


def test_one_bad_frame_decides_what_a_video_is_worth() -> None:
    videos = moving()
    bad = videos.copy()
    bad[0, 2] = 1 - bad[0, 2]
    assert compared(bad, videos).psnr[0] < 15
    assert compared(bad, videos).psnr[1] == 120.0


def test_images_have_no_flicker() -> None:
    pictures = moving()[:, 0]
    found = compare(
        pictures, pictures, pictures[::-1], prompts=["a", "b"], seeds=[0, 1], scorer=None, rng=np.random.default_rng(0)
    )
    assert (found.frames, found.flicker) == (1, None)


def test_perceptual_distances_are_told_where_there_are_some() -> None:
    videos = moving()
    stacked = videos.reshape(2, -1, 16, 3)

    def distances(images: Images, references: Images) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        assert images.shape == (2 * FRAMES, 16, 16, 3)
        return np.arange(len(images), dtype=np.float64)

    found = compare(
        stacked, stacked, stacked[::-1],
        prompts=["a", "b"], seeds=[0, 1], scorer=None, rng=np.random.default_rng(0), frames=FRAMES,
        perceptual=distances,
    )  # fmt: skip
    assert found.lpips_median == 4.5


def test_flicker_of_a_still_is_zero() -> None:
    assert flicker(np.full((1, 3, 4, 4, 3), 0.5)).tolist() == [0.0]


VIDEO = """
import numpy as np
from types import SimpleNamespace

_load = load
def load(**options):
    pipe = _load(**options)
    single = type(pipe).__call__
    class Moving(type(pipe)):
        def __call__(self, *args, **kwargs):
            images = single(self, *args, **kwargs).images
            return SimpleNamespace(frames=np.stack([np.roll(images, step, axis=2) for step in range({frames})], axis=1))
    pipe.__class__ = Moving
    return pipe
"""


def test_a_pipeline_that_makes_videos_is_measured_and_must_make_as_many_frames(
    tmp_path: Path, tiny_program: Callable[..., Program], server: ForkServer
) -> None:
    baseline, shorter = (tiny_program("video", tail=VIDEO.format(frames=frames)) for frames in (3, 2))
    work = Workload(("a cat", "a dog"), ("a bird", "a fish"), seed=0, height=16, width=16)
    with Evaluator(baseline, work, work=tmp_path, engines=tmp_path / "engines", server=server) as evaluator:
        same = evaluator.evaluate(baseline, split="heldout", pairs=(1, 1))
        wrong = evaluator.evaluate(shorter, pairs=(1, 1))
    assert isinstance(same, Measured), same
    assert (same.fidelity.frames, same.fidelity.psnr_worst) == (3, 120.0)
    assert same.fidelity.added_flicker == pytest.approx(0.0, abs=1e-3)
    with Image.open(evaluator.images_of(baseline) / "000-candidate.png") as strip:
        assert strip.size == (48, 16)
    assert isinstance(wrong, Failed)
    assert "2 frames, want 3" in wrong.message


SPARED = """
import numpy as np
from types import SimpleNamespace

_spared = load
def load(**options):
    pipe = _spared(**options)
    moving, wave = type(pipe).__call__, np.where(np.indices((16, 16)).sum(0) % 2, 1, -1)[None, None, :, :, None]
    calls = [0]
    class Sparing(type(pipe)):
        def __call__(self, *args, **kwargs):
            frames = 0.2 + 0.6 * moving(self, *args, **kwargs).frames
            calls[0] += 1
            if {spoil} and calls[0] <= 4:
                frames = frames + 0.01 * wave
            elif {spoil}:
                frames[:, 3:4] += 0.03 * wave
            return SimpleNamespace(frames=frames)
    pipe.__class__ = Sparing
    return pipe
"""


def test_a_frame_that_is_worse_in_timed_calls_than_in_others_is_seen_though_their_mean_is_as_good(
    tmp_path: Path, tiny_program: Callable[..., Program], server: ForkServer
) -> None:
    baseline, sparing = (
        tiny_program("video", tail=VIDEO.format(frames=12) + SPARED.format(spoil=spoil)) for spoil in (False, True)
    )
    work = Workload(("a cat", "a dog"), ("a bird", "a fish"), seed=0, height=16, width=16)
    with Evaluator(baseline, work, work=tmp_path, engines=tmp_path / "engines", server=server) as evaluator:
        found = evaluator.evaluate(sparing, pairs=(2, 2))
    assert isinstance(found, Failed), found.fidelity
    assert "timed calls gave images at 30.5 dB, untimed ones 40.0" in found.message
