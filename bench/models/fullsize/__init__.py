"""Public architectures at full size, from their configurations, with seeded random weights: nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from diffopt.ir.errors import DiffoptError

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
FOLDER = Path(__file__).resolve().parent
NAMES = tuple(sorted(file.stem for file in FOLDER.glob("*.json")))


@dataclass(frozen=True)
class FullSize:
    """One architecture.

    Args:
        checked: component to the public source that its configuration was compared with; the others are from memory.
        steps, guidance, height, width: the usual call, as the model's authors recommend it.
        components: name to library and class.
        configs: name to configuration; tokenizers are made of bytes and say only their lengths and special tokens.
        small: what differs in a version that a processor runs in a second; for dry runs, never for figures.
    """

    name: str
    pipeline_class: str
    sources: tuple[str, ...]
    checked: Mapping[str, str]
    steps: int
    guidance: float
    height: int
    width: int
    components: Mapping[str, tuple[str, str]]
    configs: Mapping[str, Mapping[str, JSON]]
    settings: Mapping[str, JSON]
    small: Mapping[str, Mapping[str, JSON]]
    small_call: Mapping[str, int]


def full_size(name: str) -> FullSize:
    """Read an architecture by its name.

    Raises:
        DiffoptError: there is none of that name.
    """
    if name not in NAMES:
        raise DiffoptError(f"no full-size model {name!r}", where="fullsize", hint=f"there are {', '.join(NAMES)}")
    read = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    parts = {part: tuple(entry) for part, entry in read.pop("components").items()}
    return FullSize(name=name, components=parts, sources=tuple(read.pop("sources")), **read)


def write_model(name: str, folder: Path, *, small: bool = False, dtype: str = "bfloat16") -> FullSize:
    """Write a model directory of configuration files, as `save_pretrained` lays it out, and say what the call is.

    Its `model_index.json` says `seeded_weights`: code emitted for it makes the weights instead of reading them.
    """
    model = full_size(name)
    index: dict[str, JSON] = {"_class_name": model.pipeline_class, "_diffusers_version": "0.42.1"}
    index |= {part: [library or None, kind or None] for part, (library, kind) in model.components.items()}
    index |= {**model.settings, "seeded_weights": 0, "seeded_dtype": dtype}
    for part, (library, kind) in model.components.items():
        if not library:
            continue
        config = {**model.configs[part], **(model.small.get(part, {}) if small else {})}
        file = (
            "tokenizer_config.json" if "Tokenizer" in kind
            else "scheduler_config.json" if "Scheduler" in kind
            else "config.json"
        )  # fmt: skip
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / file).write_text(json.dumps({"_class_name": kind, **config}, indent=1), encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    if not small:
        return model
    call = {"steps": model.steps, "height": model.height, "width": model.width, **model.small_call}
    return FullSize(**{**vars(model), **call})
