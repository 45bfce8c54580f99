"""What `--set NAME=VALUE` takes for a script, and how values of a call are checked."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from diffopt.ir.errors import DiffoptError
from diffopt.ir.pipeline_classes import PipelineClass
from diffopt.ir.roles import GUIDANCE
from diffopt.ir.script_kinds import Symbol
from diffopt.ir.source_directory import STEPS


@dataclass(frozen=True)
class Field:
    """A value of the description that the call gives.

    Args:
        name: in the description and for `--set`.
        argument: the keyword of the pipeline's call.
        read: makes the value from a constant or a setting's text; raises ValueError if it is no such value.
        kind: what the value must be, in words.
    """

    name: str
    argument: str
    read: Callable[[object], object]
    kind: str


def count(value: object) -> int:
    """Read a whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int | str) or int(value) < 1:
        raise ValueError
    return int(value)


def number(value: object) -> float:
    """Read a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or not -1e6 < float(value) < 1e6:
        raise ValueError
    return float(value)


def text(value: object) -> str:
    """Read text; of a list of equal texts, the one."""
    if isinstance(value, list | tuple) and value and all(part == value[0] for part in value):
        value = value[0]
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004
    return value


def dtype(value: object) -> str:
    """Read a floating point type by any of its names."""
    name = value.name.removeprefix("torch.") if isinstance(value, Symbol) else value
    name = DTYPES.get(name, name) if isinstance(name, str) else ""
    if name not in DTYPES.values():
        raise ValueError
    return str(name)


DTYPES = {
    "half": "float16",
    "float": "float32",
    "auto": "float32",
    "float16": "float16",
    "float32": "float32",
    "bfloat16": "bfloat16",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp32": "float32",
    "torch.float16": "float16",
    "torch.float32": "float32",
    "torch.bfloat16": "bfloat16",
}
FIELDS = (
    Field("steps", "num_inference_steps", count, "a whole number from 1"),
    Field("guidance", "guidance_scale", number, "a number"),
    Field("height", "height", count, "a number of pixels"),
    Field("width", "width", count, "a number of pixels"),
    Field("negative_prompt", "negative_prompt", text, "text"),
)
OTHER = {
    "batch": Field("batch", "num_images_per_prompt", count, "a whole number from 1"),
    "dtype": Field("dtype", "dtype", dtype, f"one of {', '.join(sorted(set(DTYPES.values())))}"),
    "model": Field("model", "", text, "a model directory"),
    "scheduler": Field("scheduler", "", text, "a scheduler class of diffusers"),
    "pipeline_class": Field("pipeline_class", "", text, "a pipeline class of diffusers"),
    "pipeline": Field("pipeline", "", text, "a name of the script"),
}
SETTINGS = {**{field.name: field for field in FIELDS}, **OTHER}
"""The settings that every script takes; parameters of the pipeline's call and unknowns of the script come to them."""


def read_settings(given: Mapping[str, str]) -> dict[str, object]:
    """Read settings; `NAME.steps` is for the pipeline called NAME alone.

    Raises:
        DiffoptError: a value is not what its name asks for.
    """
    read: dict[str, object] = {}
    for name, value in given.items():
        field = SETTINGS.get(name.rpartition(".")[2])
        if field is None:
            read[name] = literal(value)
            continue
        try:
            read[name] = field.read(value)
        except ValueError:
            raise DiffoptError(f"{name}={value}: not {field.kind}", where="--set") from None
    return read


def literal(value: str) -> object:
    """Return a setting's text as the Python literal it is, else as text."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def spelled(field: Field, owner: PipelineClass | None) -> Field:
    """Return a field under the name that a class has for its argument."""
    names = {"steps": STEPS, "guidance": GUIDANCE}.get(field.name, ())
    own = next((name for name in names if owner is not None and name in owner.call), "")
    return replace(field, argument=own) if own else field
