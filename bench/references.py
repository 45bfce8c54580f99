"""The baseline's images of a split, made once and kept on disk, so that a resumed run uses the same ones."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffopt.bench.disk import make_folder, write_bytes
from diffopt.bench.resident import Images
from diffopt.bench.workload import Workload

VERSION = 2
_SAME = 1e-4

Generate = Callable[[list[str], list[int]], Images]


@dataclass(frozen=True)
class References:
    """The baseline's images of a split at the split's seeds, and at other seeds as the yardstick of distances."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    images: Images
    others: Images


def references(
    workload: Workload,
    split: str,
    *,
    folder: Path,
    identity: Sequence[str],
    make: Callable[[Sequence[str], Sequence[int]], Images],
) -> References:
    """Read the baseline's images of a split from `folder`, or make and keep them.

    Args:
        identity: all that the images depend on beside prompts and seeds: program, versions, machine.
        make: generates images of prompts and seeds; called for the split's seeds, then for the others.
    """
    prompts = workload.split(split)

    def images(draw: int) -> Images:
        seeds = workload.seeds(split, draw=draw)
        text = json.dumps([VERSION, *identity, prompts, seeds, workload.height, workload.width, workload.frames])
        path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"
        kept = _read(path, len(prompts), workload)
        if kept is not None:
            return kept
        made = make(prompts, seeds)
        _write(path, made)
        return made

    return References(prompts, workload.seeds(split), images(0), images(1))


def in_batches(
    generate: Generate, prompts: Sequence[str], seeds: Sequence[int], *, size: int, report: Callable[[int], None]
) -> Images:
    """Generate images several a call where that gives the same images, each from a generator of its own seed.

    The first image is also made alone; if the two differ by more than 1e-4 anywhere (80 dB, far above any tier's
    floor), all are made alone.
    """
    first = generate([prompts[0]], [seeds[0]])
    if size > 1 and len(prompts) > 1:
        batch = generate(list(prompts[:size]), list(seeds[:size]))
        size = size if np.abs(batch[:1] - first).max() <= _SAME else 1
    done = [batch] if size > 1 and len(prompts) > 1 else [first]
    while (made := sum(map(len, done))) < len(prompts):
        report(made)
        done.append(generate(list(prompts[made : made + size]), list(seeds[made : made + size])))
    return np.concatenate(done)


def _read(path: Path, count: int, workload: Workload) -> Images | None:
    try:
        images = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None
    whole = (
        images.shape == (count, workload.height * max(1, workload.frames), workload.width, 3)
        and images.dtype == np.float32
    )
    return np.asarray(images, dtype=np.float32) if whole else None


def _write(path: Path, images: Images) -> None:
    buffer = io.BytesIO()
    np.save(buffer, images, allow_pickle=False)
    make_folder(path.parent)
    write_bytes(path, buffer.getvalue())
