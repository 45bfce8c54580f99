"""Carry trained parts from one machine to another: two uncompressed archives of safetensors and logs."""

from __future__ import annotations

import tarfile
from collections.abc import Collection
from pathlib import Path

PARTS = 2


def pack(work: Path, out: Path) -> None:
    """Write models-1.tar and models-2.tar, of about the same size, with every `.safetensors`, `.log` and `.out`."""
    found = sorted(work.glob("*.safetensors"), key=lambda path: -path.stat().st_size)
    sizes = [0] * PARTS
    chosen: list[list[Path]] = [[] for _ in range(PARTS)]
    for path in found:
        smallest = sizes.index(min(sizes))
        chosen[smallest].append(path)
        sizes[smallest] += path.stat().st_size
    chosen[0] += [*sorted(work.glob("*.log")), *sorted(work.glob("*.out"))]
    for index, paths in enumerate(chosen):
        fresh = out / f"models-{index + 1}.new"
        with tarfile.open(fresh, "w") as archive:
            for path in paths:
                archive.add(path, path.name, recursive=False)
        fresh.replace(out / f"models-{index + 1}.tar")


def unpack(folder: Path, names: Collection[str]) -> None:
    """Write those of the named models that a folder's archives hold into the package, each with its log."""
    import tempfile

    from diffopt.bench.models.learning.one import RECIPES, folder_of, load_parts

    with tempfile.TemporaryDirectory() as place:
        for archive in sorted(folder.glob("models-*.tar")):
            with tarfile.open(archive) as opened:
                opened.extractall(place, filter="data")
        for name, recipe in RECIPES.items():
            stored = Path(place) / f"{name}.safetensors"
            if name not in names or not stored.exists():
                continue
            target = folder_of(recipe)
            recipe.write(load_parts(recipe, stored), target / "weights")
            log = Path(place) / f"{name}.log"
            if log.exists():
                (target / "train.log").write_text(log.read_text())
            print(f"{name}: written to {target}")
