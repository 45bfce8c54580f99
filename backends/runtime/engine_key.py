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
    """Return a hash of the module's configuration and of every parameter and buffer, by name."""
    digest = hashlib.sha256()
    config: Any = getattr(module, "config", None)
    described = config.to_dict() if hasattr(config, "to_dict") else dict(config or {})
    kept = {
        name: value for name, value in described.items() if not name.startswith("_") and name != "transformers_version"
    }
    digest.update(repr(sorted(kept.items(), key=lambda item: item[0])).encode())
    for name, value in sorted({**dict(module.named_parameters()), **dict(module.named_buffers())}.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


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
