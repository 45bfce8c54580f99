"""Lift a model directory: `model_index.json` and configurations are read, weights are not."""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from diffopt.ir.description import JSON, ComponentDescription, PipelineDescription, is_name
from diffopt.ir.errors import DiffoptError

CONFIG_FILES = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")
"""Where a component keeps its configuration, in the order they are looked for."""

DEEPEST = 32
"""Levels of a configuration file; more are no configuration."""


def describe_directory(
    path: str | Path,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    height: int | None = None,
    width: int | None = None,
    name: str = "",
) -> PipelineDescription:
    """Describe the pipeline saved in a directory.

    Args:
        path: directory with a `model_index.json`, as `save_pretrained` writes it.
        steps, guidance, height, width: the call to optimize; what is left out is the pipeline class's own default.

    Raises:
        DiffoptError: the path or a file in it is missing or not what it should be.
    """
    root = Path(path)
    index_file = root / "model_index.json"
    try:
        found, has_index = root.exists(), index_file.is_file()
    except OSError as error:
        raise DiffoptError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if not found:
        raise DiffoptError("no such model directory", where=str(path), hint="check the path")
    if not has_index:
        raise DiffoptError(
            "not a diffusers model directory: it has no model_index.json",
            where=str(path),
            hint="give a directory that `pipeline.save_pretrained` wrote",
        )
    index = _read_json(index_file)
    pipeline_class = index.get("_class_name")
    if not isinstance(pipeline_class, str) or not is_name(pipeline_class):
        raise DiffoptError("`_class_name` does not name a pipeline class", where=str(index_file))
    parts = tuple(
        ComponentDescription(part, f"{library}.{class_name}", _component_config(root / part))
        for part, (library, class_name) in _component_classes(index, index_file).items()
    )
    defaults = call_defaults(pipeline_class)
    side_height, side_width = _image_size(parts)
    return PipelineDescription(
        name=name or root.resolve().name,
        pipeline_class=f"diffusers.{pipeline_class}",
        model=str(root.resolve()),
        components=parts,
        steps=steps if steps is not None else int(defaults.get("num_inference_steps", 50)),
        guidance=guidance if guidance is not None else float(defaults.get("guidance_scale", 7.5)),
        height=height if height is not None else side_height,
        width=width if width is not None else side_width,
    )


@cache
def call_defaults(pipeline_class: str) -> Mapping[str, float]:
    """Read the numeric defaults of a pipeline's `__call__` off the installed diffusers, without importing it."""
    spec = importlib.util.find_spec("diffusers")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    for root in roots:
        for file in sorted(Path(root, "pipelines").rglob("pipeline_*.py")):
            text = file.read_text(encoding="utf-8")
            if f"class {pipeline_class}(" in text:
                return _numeric_defaults(ast.parse(text), pipeline_class)
    return {}


def _numeric_defaults(tree: ast.Module, pipeline_class: str) -> dict[str, float]:
    for node in tree.body:
        if not (isinstance(node, ast.ClassDef) and node.name == pipeline_class):
            continue
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name == "__call__":
                names = method.args.args[-len(method.args.defaults) :] if method.args.defaults else []
                pairs = zip(names, method.args.defaults, strict=True)
                return {
                    argument.arg: default.value
                    for argument, default in pairs
                    if isinstance(default, ast.Constant)
                    and isinstance(default.value, int | float)
                    and not isinstance(default.value, bool)
                }
    return {}


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
        data = json.loads(path.read_text(encoding="utf-8"))
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


def _image_size(parts: tuple[ComponentDescription, ...]) -> tuple[int, int]:
    """Return height and width in pixels: the denoiser's sample size times the VAE's scale."""
    configs = {part.name: part.config for part in parts}
    denoiser: Mapping[str, JSON] = configs.get("unet") or configs.get("transformer") or {}
    blocks = configs.get("vae", {}).get("block_out_channels")
    scale = 2 ** (len(blocks) - 1) if isinstance(blocks, list) and blocks else 8
    sample = denoiser.get("sample_size")
    if isinstance(sample, list) and len(sample) == 2 and all(isinstance(s, int) for s in sample):
        height, width = (int(s) for s in sample if isinstance(s, int))
        return height * scale, width * scale
    side = sample if isinstance(sample, int) and not isinstance(sample, bool) else 64
    return side * scale, side * scale
