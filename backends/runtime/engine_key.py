"""Say what an engine depends on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from diffopt.backends.base import JSON, Builder, EngineKey

LIBRARIES = ("torch", "diffusers", "transformers")
PASSING = frozenset({"training", "gradient_checkpointing", "name_or_path", "warnings_issued"})
"""Settings of modules that no engine depends on."""
ADAPTERS = frozenset({"_active_adapter", "_disable_adapters"})
"""Settings of adapters' layers whose names say that they are not for others, and that engines depend on."""


def engine_key(
    builder: Builder,
    modules: Sequence[torch.nn.Module],
    *,
    transforms: Sequence[JSON],
    inputs: Sequence[JSON],
    options: Mapping[str, JSON],
) -> EngineKey:
    """Return the key of an engine made of these modules' weights with this builder, for this machine."""
    versions = {name: importlib.metadata.version(name) for name in (*LIBRARIES, *builder.packages)}
    weights = hashlib.sha256("".join(weights_hash(module) for module in modules).encode()).hexdigest()
    return EngineKey(builder.name, weights, transforms, inputs, options, versions, device_fingerprint())


def in_the_graph(transforms: Sequence[JSON]) -> list[JSON]:
    """Return what of a component's transforms shapes the code that an engine of one of its leaves is made of.

    A step plan's schedule stays outside: which step is full, guided or fresh is decided before the engine is called, so
    that plans of any steps share engines. Where the engine is calibrated, it depends on what the schedule had recorded.
    """
    entries = [dict(entry) for entry in transforms if isinstance(entry, Mapping)]
    if any(entry.get("transform") == "calibrate" for entry in entries):
        return [*transforms]
    found: list[JSON] = []
    for entry in entries:
        if entry.get("transform") != "follow_step_plan":
            found.append(entry)
        elif entry.get("cached"):
            found.append({name: entry.get(name) for name in ("transform", "branch", "blocks", "cached")})
    return found


def weights_hash(module: torch.nn.Module) -> str:
    """Return a hash of the module's configuration, of the settings of its parts, and of every parameter and buffer, by name."""
    digest = hashlib.sha256()
    config: Any = getattr(module, "config", None)
    described = config.to_dict() if hasattr(config, "to_dict") else dict(config or {})
    kept = {
        name: value for name, value in described.items() if not name.startswith("_") and name != "transformers_version"
    }
    digest.update(repr(sorted(kept.items(), key=lambda item: item[0])).encode())
    digest.update(repr(settings_of(module)).encode())
    for name, value in sorted({**dict(module.named_parameters()), **dict(module.named_buffers())}.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def settings_of(module: torch.nn.Module) -> list[tuple[str, str, Any]]:
    """Return what is set on a module's parts and is no weight: FreeU's factors, strengths of adapters, tiles of a VAE.

    Each by the part's name and its own; of what is plain alone, so that it is the same in every process.
    """
    found = []
    for name, part in module.named_modules():
        processor = getattr(part, "processor", None)
        held = [("", part)] if isinstance(processor, torch.nn.Module | None) else [("", part), ("processor", processor)]
        for prefix, owner in held:
            found += [
                (name, f"{prefix}.{key}", value)
                for key, value in sorted(getattr(owner, "__dict__", {}).items())
                if key not in PASSING and (not key.startswith("_") or key in ADAPTERS) and is_plain(value)
            ]
    return found


def plainly(value: object) -> str:
    """Write an argument of a call that an engine has fixed in it; of objects, their class."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {plainly(item)}' for key, item in value.items())}}}"
    return repr(value) if is_plain(value) else type(value).__qualname__


def is_plain(value: object) -> bool:
    """Tell whether a value is of numbers and words alone, however they are nested."""
    if isinstance(value, Mapping):
        return all(map(is_plain, [*value.keys(), *value.values()]))
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def device_fingerprint() -> str:
    """Return the processor's model and instruction sets in one short word; engines compile for them."""
    described = [platform.machine(), platform.system()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        described += [next((line for line in lines if line.startswith(key)), "") for key in ("model name", "flags")]
    return f"cpu-{hashlib.sha256('|'.join(described).encode()).hexdigest()[:12]}"


def signature_of(names: Sequence[str], values: Sequence[torch.Tensor], batched: Sequence[bool]) -> list[JSON]:
    """Return names, types and sizes of inputs, with an open batch as -1."""
    shapes = [
        [-1 if is_open and axis == 0 else size for axis, size in enumerate(value.shape)]
        for value, is_open in zip(values, batched, strict=True)
    ]
    return [[name, str(value.dtype), shape] for name, value, shape in zip(names, values, shapes, strict=True)]
