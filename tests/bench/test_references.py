from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffopt.bench.references import in_batches, references
from diffopt.bench.resident import Images
from diffopt.bench.workload import Workload

WORKLOAD = Workload(("a", "b", "c", "d", "e"), ("f",), seed=0, height=4, width=4)


def draw(prompts: Sequence[str], seeds: Sequence[int]) -> Images:
    return np.stack([np.random.default_rng(seed).random((4, 4, 3), dtype=np.float32) for seed in seeds])


def test_images_are_made_once_and_then_read(tmp_path: Path) -> None:
    asked: list[Sequence[int]] = []

    def make(prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        asked.append(seeds)
        return draw(prompts, seeds)

    first, second = (references(WORKLOAD, "search", folder=tmp_path, identity=["program"], make=make) for _ in range(2))
    assert asked == [WORKLOAD.seeds("search"), WORKLOAD.seeds("search", draw=1)]
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.others, second.others)


def test_another_program_or_a_broken_file_is_made_again(tmp_path: Path) -> None:
    calls: list[int] = []

    def make(prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        calls.append(1)
        return draw(prompts, seeds)

    references(WORKLOAD, "search", folder=tmp_path, identity=["one"], make=make)
    references(WORKLOAD, "search", folder=tmp_path, identity=["two"], make=make)
    assert len(calls) == 4
    for path in tmp_path.iterdir():
        path.write_bytes(b"not numpy")
    references(WORKLOAD, "search", folder=tmp_path, identity=["one"], make=make)
    assert len(calls) == 6


def sizes_of(batch_error: float) -> tuple[list[int], Images]:
    sizes: list[int] = []

    def generate(prompts: list[str], seeds: list[int]) -> Images:
        sizes.append(len(prompts))
        images = draw(prompts, seeds)
        return images + np.float32(batch_error) if len(prompts) > 1 else images

    made = in_batches(generate, WORKLOAD.prompts, range(5), size=3, report=lambda done: None)
    return sizes, made


def test_images_are_made_in_batches_where_that_changes_nothing() -> None:
    sizes, made = sizes_of(0.0)
    assert sizes == [1, 3, 2]
    assert np.array_equal(made, draw(WORKLOAD.prompts, range(5)))


def test_images_are_made_alone_where_a_batch_gives_others() -> None:
    sizes, made = sizes_of(0.01)
    assert sizes == [1, 3, 1, 1, 1, 1]
    assert np.array_equal(made, draw(WORKLOAD.prompts, range(5)))
