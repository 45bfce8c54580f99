"""What is here: processor, memory, accelerators, library versions, for `diffopt devices` and for manifests."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Final

from diffopt.bench.memory import available_bytes
from diffopt.ir.errors import DiffoptError

LIBRARIES: Final = (
    "diffopt", "torch", "diffusers", "transformers", "accelerate", "numpy", "openvino", "nncf", "onnxruntime",
    "onnxruntime-gpu", "onnx", "torchao", "tensorrt", "triton",
)  # fmt: skip
_FLAGS = {"avx2": "avx2", "avx512f": "avx512", "avx512_bf16": "bf16", "avx512_vnni": "vnni", "avx_vnni": "vnni",
          "amx_tile": "amx", "amx_bf16": "amx-bf16", "amx_int8": "amx-int8", "asimd": "neon", "bf16": "bf16",
          "i8mm": "i8mm"}  # fmt: skip


def devices(*, accelerators: bool = True) -> list[dict[str, object]]:
    """List the devices of this machine, the processor first.

    Args:
        accelerators: ask torch for GPUs, which imports it (seconds).
    """
    fields = _cpu_fields()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    cpu: dict[str, object] = {
        "device": "cpu",
        "name": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "features": sorted({name for flag, name in _FLAGS.items() if flag in flags}),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "available_bytes": available_bytes(),
    }
    return [cpu, *(_accelerators() if accelerators else [])]


def check_target(target: str) -> None:
    """Check that a target names a device of this machine.

    Raises:
        DiffoptError: it is no device's name, or there is no such device.
    """
    if target == "cpu":
        return
    kind, _, index = target.partition(":")
    if kind != "cuda" or (index and not (index.isascii() and index.isdigit())):
        raise DiffoptError(f"unknown target {target!r}", where="--target", hint="cpu or cuda[:N]")
    here = [str(device["device"]) for device in _accelerators()]
    if f"cuda:{int(index or 0)}" not in here:
        hint = f"there is {', '.join(['cpu', *here])}"
        raise DiffoptError(f"no device {target} on this machine", where="--target", hint=hint)


def versions() -> dict[str, str]:
    """Return the installed versions of the libraries that decide a measurement."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, object]:
    """Return what a measurement depends on beside the program: machine, system, versions, load."""
    cpu = devices(accelerators=False)[0]
    return {
        "cpu": cpu["name"],
        "cores": cpu["cores"],
        "features": cpu["features"],
        "memory_bytes": cpu["memory_bytes"],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def _cpu_fields() -> dict[str, str]:
    """Read the first processor's entry; other systems than Linux have none."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _accelerators() -> list[dict[str, object]]:
    import torch

    if not torch.cuda.is_available():
        return []
    found: list[dict[str, object]] = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(
            {
                "device": f"cuda:{index}",
                "name": properties.name,
                "cores": properties.multi_processor_count,
                "features": [f"sm{properties.major}{properties.minor}"],
                "memory_bytes": properties.total_memory,
            }
        )
    return found
