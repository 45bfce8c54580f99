"""A folder of engines that anyone can deploy: one subfolder a component, and a manifest that says what each takes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffopt.backends.base import JSON, BackendError, Builder, EngineKey, EngineOptions, Part, Run, builder

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Exported:
    """One component's engine: what it takes, what was checked, and what it costs."""

    name: str
    inputs: Sequence[JSON]
    outputs: Sequence[JSON]
    open: Mapping[str, tuple[int, int, int]]
    facts: Mapping[str, JSON]
    bytes: int
    load_s: float
    built: bool

    def to_json(self) -> dict[str, JSON]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def export_parts(
    parts: Sequence[Part],
    chosen: Builder,
    options: EngineOptions,
    out: Path,
    *,
    key_of: Callable[[Part], EngineKey],
    about: Mapping[str, JSON],
    replace: bool,
    say: Callable[[str], None],
) -> list[Exported]:
    """Build an engine of each part below `out`, and write the manifest; engines that are there already are kept.

    So are the rows of other components that were exported there before, or are meanwhile by another process, each with the
    backend that it was made by.

    about: of the pipeline, for the manifest. say: gets a line before each build.
    Raises BackendError for the first part that cannot be built; engines before it stay, with their manifest.
    """
    from diffopt.backends.engine_store import store_engine
    from diffopt.backends.numeric_check import refuse_far

    check_place(out)
    out.mkdir(parents=True, exist_ok=True)
    damaged = _damaged(out)
    made: list[Exported] = []
    for part in parts:
        say(part.name)
        folder = out / part.name

        def build(scratch: Path, part: Part = part) -> Mapping[str, JSON]:
            return refuse_far(chosen.build(part, scratch, options), options, part.name)

        built = store_engine(folder, key_of(part), build, replace=replace)
        made.append(_described(part, chosen, options, folder, built))
        _write(out, chosen, options, about, damaged, made)
    return made


def check_place(out: Path) -> None:
    """Check that engines may be written into a folder: it is not there, or its manifest is one of ours, or it has none.

    Raises BackendError if something else would be overwritten.
    """
    if os.path.lexists(out) and not out.is_dir():
        raise BackendError(f"{out} is no folder", "give another -o")
    if not os.path.lexists(out / MANIFEST):
        return
    _manifest(out, "give another -o")


def _manifest(out: Path, hint: str) -> dict[str, Any]:
    """Return a folder's manifest, checked: each component names a folder right below.

    Raises BackendError if it cannot be read, or is none of ours.
    """
    try:
        manifest: dict[str, Any] = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise BackendError(f"{out / MANIFEST} cannot be read", hint) from None
    if not isinstance(manifest, dict) or not {"format", "backend", "components"} <= manifest.keys():
        raise BackendError(f"{out / MANIFEST} is not of exported engines", hint)
    if manifest["format"] != FORMAT:
        raise BackendError(f"{out / MANIFEST} is of format {manifest['format']}, this version reads {FORMAT}", hint)
    rows = manifest["components"]
    if not isinstance(rows, list) or not all(isinstance(row, dict) and _is_plain(row.get("name")) for row in rows):
        raise BackendError(f"{out / MANIFEST} names no components in folders below it", hint)
    for made in (manifest, *rows):
        if not isinstance(made.get("backend", ""), str) or not _are_options(made.get("options", {})):
            raise BackendError(f"{out / MANIFEST} does not say how its engines were made", hint)
    return manifest


def _is_plain(name: object) -> bool:
    """Say whether a name is of a folder right below another."""
    return isinstance(name, str) and name.isprintable() and "/" not in name and name not in ("", ".", "..")


def _are_options(value: object) -> bool:
    kinds = {"precision": str, "dynamic_int8": bool}
    return isinstance(value, dict) and all(isinstance(item, kinds.get(name, ())) for name, item in value.items())


def load_exported(out: Path, device: str = "cpu") -> dict[str, Run]:
    """Return what runs each engine of an exported folder, by component.

    Raises BackendError if there is none, or if one is damaged or of other versions than are installed.
    """
    from diffopt.backends.engine_store import check_engine

    manifest = _manifest(out, "diffopt export makes such a folder")
    found: dict[str, Run] = {}
    for row in manifest["components"]:
        options = EngineOptions(**row.get("options", manifest.get("options", {})))
        chosen = builder(row.get("backend", manifest["backend"]), options, device)
        folder = out / row["name"]
        damage = check_engine(folder)
        if damage is not None:
            raise BackendError(f"{folder}: {damage}", "export it again")
        found[row["name"]] = chosen.load(folder, options)
    return found


def _described(part: Part, chosen: Builder, options: EngineOptions, folder: Path, built: bool) -> Exported:
    import torch

    from diffopt.backends.engine_store import read_manifest

    started = time.perf_counter()
    run = chosen.load(folder, options)
    load_s = time.perf_counter() - started
    with torch.no_grad():
        results = run(part.inputs)
    names = {position: axes for position, axes in enumerate(part.axes())}
    inputs: list[JSON] = [
        {
            "name": name,
            "dtype": str(value.dtype).removeprefix("torch."),
            "shape": [names[i][p].name if p in names[i] else size for p, size in enumerate(value.shape)],
        }
        for i, (name, value) in enumerate(zip(part.input_names, part.inputs, strict=True))
    ]
    outputs: list[JSON] = [
        {"dtype": str(value.dtype).removeprefix("torch."), "usual_shape": list(value.shape)} for value in results
    ]
    opened = {axis.name: (axis.least, axis.usual, axis.most) for axes in part.axes() for axis in axes.values()}
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    facts = read_manifest(folder)["facts"]
    return Exported(part.name, inputs, outputs, opened, facts, size, round(load_s, 3), built)


def _rows(out: Path) -> dict[str, dict[str, Any]]:
    """Return the components of a folder's manifest, each with how it was made."""
    if not (out / MANIFEST).exists():
        return {}
    manifest = _manifest(out, "give another -o")
    made: dict[str, Any] = {name: manifest[name] for name in ("backend", "options", "versions") if name in manifest}
    return {str(row["name"]): {**made, **row} for row in manifest["components"]}


def _damaged(out: Path) -> set[str]:
    """Return the components of a folder's manifest whose engines are no longer there, or no longer whole."""
    from diffopt.backends.engine_store import check_engine

    return {name for name in _rows(out) if check_engine(out / name) is not None}


def _write(
    out: Path,
    chosen: Builder,
    options: EngineOptions,
    about: Mapping[str, JSON],
    damaged: set[str],
    made: Sequence[Exported],
) -> None:
    """Write the manifest with what is made, beside what stands there by now: another process may write there too."""
    from diffopt.backends.engine_store import locked

    packages = ("torch", "diffusers", "transformers", *chosen.packages)
    own: dict[str, Any] = {
        "backend": chosen.name,
        "options": options.to_json(),
        "versions": {name: importlib.metadata.version(name) for name in dict.fromkeys(packages)},
    }
    with locked(out / f".{MANIFEST}.lock"):
        before = {name: row for name, row in _rows(out).items() if name not in damaged}
        kept: dict[str, Any] = {
            name: {key: value for key, value in row.items() if own.get(key) != value} for name, row in before.items()
        }
        rows = {**kept, **{row.name: row.to_json() for row in made}}
        manifest = {"format": FORMAT, **own, **about, "components": list(rows.values())}
        draft = out / f".{MANIFEST}.draft"
        draft.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        draft.replace(out / MANIFEST)
