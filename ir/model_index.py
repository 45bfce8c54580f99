"""Read a saved pipeline: `model_index.json` and the configuration of each component."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffopt.ir.description import JSON, ComponentDescription, is_name
from diffopt.ir.errors import DiffoptError

CONFIG_FILES = (
    "config.json",
    "scheduler_config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
)
"""Where a component keeps its configuration, in the order they are looked for."""

DEEPEST = 32
"""Levels of a configuration file; more are no configuration."""


@dataclass(frozen=True)
class ModelIndex:
    """A saved pipeline: its class, its components, and the constants its constructor takes."""

    pipeline_class: str
    components: tuple[ComponentDescription, ...]
    settings: Mapping[str, JSON]


def read_index(root: Path) -> ModelIndex:
    """Read the pipeline saved in a directory.

    Raises:
        DiffoptError: the directory or a file in it is missing or not what it should be.
    """
    index_file = root / "model_index.json"
    try:
        found, has_index = root.exists(), index_file.is_file()
    except OSError as error:
        raise DiffoptError(f"cannot be read: {error.strerror}", where=str(root)) from None
    if not found:
        raise DiffoptError("no such model directory", where=str(root), hint="check the path")
    if not has_index:
        raise DiffoptError(
            "not a diffusers model directory: it has no model_index.json",
            where=str(root),
            hint="name the project's main script"
            if any(root.glob("*.py")) or any(root.glob("*.ipynb"))
            else "give a directory that `pipeline.save_pretrained` wrote",
        )
    index = _read_json(index_file)
    pipeline_class = index.get("_class_name")
    if not isinstance(pipeline_class, str) or not is_name(pipeline_class):
        raise DiffoptError("`_class_name` does not name a pipeline class", where=str(index_file))
    classes = _component_classes(index, index_file)
    return ModelIndex(
        pipeline_class,
        tuple(
            ComponentDescription(part, f"{library}.{class_name}", _component_config(root / part))
            for part, (library, class_name) in classes.items()
        ),
        {
            key: value
            for key, value in index.items()
            if not key.startswith("_") and key not in classes and not isinstance(value, list | dict)
        },
    )


def _component_classes(index: Mapping[str, JSON], file: Path) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for part, entry in index.items():
        if part.startswith("_") or not isinstance(entry, list) or len(entry) != 2:
            continue
        library, class_name = entry
        if isinstance(library, str) and isinstance(class_name, str):
            found[part] = (library, class_name)
        elif isinstance(library, str) or isinstance(class_name, str):
            raise DiffoptError(f"{part!r} does not name a library and a class", where=str(file))
    return found


def _component_config(folder: Path) -> dict[str, JSON]:
    for file in CONFIG_FILES:
        if (folder / file).is_file():
            return _read_json(folder / file)
    return {}


def _read_json(path: Path) -> dict[str, JSON]:
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DiffoptError(f"not JSON: {error.msg}", where=f"{path}:{error.lineno}") from None
    # ValueError: bytes that are no UTF-8, or a number of thousands of digits.
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise DiffoptError(f"cannot be read: {reason}", where=str(path)) from None
    if not isinstance(data, dict):
        raise DiffoptError("holds no JSON object", where=str(path))
    if _deeper_than(data, DEEPEST):
        raise DiffoptError(f"nested more than {DEEPEST} deep", where=str(path))
    return data


def _deeper_than(value: JSON, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper_than(child, depth - 1) for child in children)
