"""Witnesses of what public API did to a pipeline: read off its parts, as nothing of ours was there to count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffopt.backends.base import Witness


def observed(pipe: Any) -> Iterator[Witness]:
    """Yield a witness for each change of public API that is seen on the pipeline's parts."""
    import torch

    for name, part in pipe.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        modules = list(part.modules())
        yield from _counted(
            "fuse_qkv",
            sum(bool(getattr(module, "fused_projections", False)) for module in modules),
            f"{name}: attention layers with fused projections",
        )
        layers = [module.weight for module in modules if isinstance(module, torch.nn.Conv2d)]
        laid = sum(w.is_contiguous(memory_format=torch.channels_last) and not w.is_contiguous() for w in layers)
        yield from _counted("channels_last", laid, f"{name}: convolutions laid out with channels last")
        compiled = sum(getattr(module, "_compiled_call_impl", None) is not None for module in modules)
        yield from _counted("compile_regional", compiled, f"{name}: blocks that run compiled")
        yield from _counted("slice_vae", int(bool(getattr(part, "use_slicing", False))), f"{name}: decodes in slices")
        yield from _hooks(name, modules)
        backends = {getattr(getattr(module, "processor", None), "_attention_backend", None) for module in modules}
        for backend in backends - {None}:
            processors = [getattr(module, "processor", None) for module in modules]
            count = sum(getattr(processor, "_attention_backend", None) == backend for processor in processors)
            yield Witness(
                "attention_backend", count, f"{name}: attention layers on {getattr(backend, 'value', backend)}"
            )


def _hooks(name: str, modules: list[Any]) -> Iterator[Witness]:
    """Yield witnesses of hooks: diffusers keeps its own in a registry on each module, accelerate one on each."""
    found: dict[str, int] = {}
    for module in modules:
        registry = getattr(module, "_diffusers_hook", None)
        for hook in getattr(registry, "hooks", {}):
            found[hook] = found.get(hook, 0) + 1
        kind = type(getattr(module, "_hf_hook", None)).__name__
        found[kind] = found.get(kind, 0) + 1
    yield from _counted("cast_layerwise", found.get("layerwise_casting", 0), f"{name}: layers stored in 8-bit floats")
    yield from _counted("offload_groups", found.get("group_offloading", 0), f"{name}: layers offloaded in groups")
    yield from _counted("offload_model", found.get("CpuOffload", 0), f"{name}: offloaded between calls")
    aligned = found.get("AlignDevicesHook", 0)
    yield from _counted("offload_sequential", aligned, f"{name}: layers offloaded between calls")


def _counted(transform: str, count: int, detail: str) -> Iterator[Witness]:
    if count:
        yield Witness(transform, count, f"{detail} ({count})")
