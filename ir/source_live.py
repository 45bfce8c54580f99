"""Lift a live pipeline object: what its components, configurations and adapters say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from diffopt.ir.description import JSON, Adapter, ComponentDescription, PipelineDescription, Present
from diffopt.ir.errors import DiffoptError
from diffopt.ir.model_index import ModelIndex
from diffopt.ir.source_directory import describe_index, with_call

SWITCHED = (("use_slicing", "enable_slicing"), ("use_tiling", "enable_tiling"))
"""Attributes of a component, and the method that sets them."""


def describe_live(
    pipe: object,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    height: int | None = None,
    width: int | None = None,
    model: str = "",
    name: str = "",
) -> PipelineDescription:
    """Describe a pipeline object; it is asked, not run or changed.

    Args:
        pipe: of a `DiffusionPipeline` subclass.
        steps, guidance, height, width: the call to optimize; what is left out is the pipeline class's own default.
        model: directory or hub id to load it from; by default where it was loaded from.

    Raises:
        DiffoptError: it is no pipeline, or it was not loaded from anywhere and `model` does not say.
    """
    live: Any = pipe
    class_name = type(live).__name__
    parts = getattr(live, "components", None)
    if not isinstance(parts, Mapping) or not hasattr(live, "config"):
        raise DiffoptError(f"{class_name} is no diffusers pipeline", where="lift", hint="give a DiffusionPipeline")
    settings: dict[str, JSON] = {}
    for key, value in dict(live.config).items():
        plain = key not in parts and not key.startswith("_") and _is_json(value)
        if plain and not isinstance(value, list | tuple | dict):
            settings[key] = value
    held = tuple(
        ComponentDescription(key, _class_of(part), _config_of(part)) for key, part in parts.items() if part is not None
    )
    place = model or _place(live)
    if not place:
        raise DiffoptError(
            f"this {class_name} was not loaded from a directory or hub id",
            where="lift",
            hint="save it with save_pretrained and give model=DIRECTORY",
        )
    described = describe_index(ModelIndex(class_name, held, settings), place, name or _name(place, class_name))
    described = replace(
        described,
        dtype=_dtype(parts),
        adapters=tuple(_adapters(parts)),
        present=tuple(_present(live, parts)),
    )
    return with_call(described, steps=steps, guidance=guidance, height=height, width=width)


def _class_of(part: object) -> str:
    """Return the class as `model_index.json` spells it: the folder for what stands beside a pipeline."""
    kind = type(getattr(part, "_orig_mod", part))
    parts = kind.__module__.split(".")
    if parts[0] == "diffusers" and "pipelines" in parts[:-1]:
        return f"{parts[-2]}.{kind.__name__}"
    return f"{parts[0]}.{kind.__name__}"


def _config_of(part: object) -> dict[str, JSON]:
    """Return the configuration as JSON, without what is private or no JSON."""
    config = getattr(part, "config", None)
    given = config.to_dict() if config is not None and hasattr(config, "to_dict") else config
    found: dict[str, JSON] = {}
    for key, value in given.items() if isinstance(given, Mapping) else ():
        if isinstance(key, str) and not key.startswith("_") and _is_json(value):
            found[key] = _plain(value)
    return found


def _is_json(value: object, depth: int = 8) -> bool:
    if isinstance(value, list | tuple):
        return depth > 0 and all(_is_json(item, depth - 1) for item in value)
    if isinstance(value, Mapping):
        return depth > 0 and all(isinstance(k, str) and _is_json(v, depth - 1) for k, v in value.items())
    return value is None or type(value) in (bool, int, float, str)


def _plain(value: Any) -> JSON:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value  # type: ignore[no-any-return]


def _place(live: Any) -> str:
    """Return where the pipeline was loaded from; empty where that is not known."""
    for holder in (live.config, live):
        found = getattr(holder, "_name_or_path", None) or getattr(holder, "name_or_path", None)
        if isinstance(found, str | PurePath) and str(found):
            return str(found)
    config = live.config
    found = config.get("_name_or_path") if isinstance(config, Mapping) else None
    return str(found) if isinstance(found, str | PurePath) else ""


def _name(place: str, class_name: str) -> str:
    return place.rstrip("/").rpartition("/")[2] or class_name


def _dtype(parts: Mapping[str, object]) -> str:
    """Return the dtype of the denoiser, or of the first component that has one."""
    order = sorted(parts, key=lambda key: key not in ("unet", "transformer", "prior", "decoder"))
    found = (str(getattr(parts[key], "dtype", "")) for key in order)
    return next((name.removeprefix("torch.") for name in found if name.startswith("torch.")), "float32")


def _adapters(parts: Mapping[str, object]) -> Iterator[Adapter]:
    """Yield the LoRA weights that are loaded; where they came from, a live object does not remember."""
    configs = [getattr(part, "peft_config", None) for part in parts.values()]
    for name in dict.fromkeys(name for config in configs if isinstance(config, dict) for name in config):
        yield Adapter("lora", "", name=str(name))


def _present(live: Any, parts: Mapping[str, object]) -> Iterator[Present]:
    """Yield what is switched on already."""
    for key, part in parts.items():
        if hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) is not None:
            yield Present("compile", key)
        config = getattr(part, "config", None)
        if getattr(config, "quantization_config", None) is not None:
            yield Present("quantization_config", key)
        for attribute, method in SWITCHED:
            if getattr(part, attribute, False) is True:
                yield Present(method, key)
    if getattr(live, "_offload_gpu_id", None) is not None or getattr(live, "_all_hooks", None):
        yield Present("enable_model_cpu_offload", "pipeline")
