"""Build one arm: emit its code, run it, and let arms share the weights that they have in common."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

from diffopt.bench.gpu.arms import Arm
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.passes.pipeline import Trace, applied


def emitted(arm: Arm, model: Path, call: dict[str, Any], *, compiled: bool, fewer: int = 0) -> str:
    """Return the code of an arm.

    Args:
        model: directory that `write_model` wrote.
        call: steps, guidance, height and width.
        compiled: else captured steps run the denoiser as it is, for dry runs.
        fewer: what steps are reduced to instead, where calls have but a few.
    """
    from diffopt.ir.description import build_module
    from diffopt.ir.source_directory import describe_directory

    trace = arm.trace if compiled else re.sub(r"capture-step\{mode=[\w-]+", "capture-step{mode=eager", arm.trace)
    if fewer:
        trace = re.sub(r"reduce-steps\{steps=\d+", f"reduce-steps{{steps={fewer}", trace)
    module = build_module(describe_directory(model, **call))
    return emit_pipeline(applied(Trace.parse(trace), module) if trace else module)


def load(code: str, folder: Path, model: Path, device: str) -> Any:
    """Run emitted code and return its pipeline."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pipeline.py"
    path.write_text(code, encoding="utf-8")
    name = f"diffopt_gpu_{folder.parent.name}_{folder.name}".replace("-", "_")
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    pipe = module.load(model=str(model), device=device, engines=folder / "engines")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def share_weights(pipe: Any, base: Any) -> None:
    """Let a pipeline use another's tensors where it has the same: seeds are equal, so values are.

    Before its first call: compiled code and graphs keep addresses.
    """
    import torch

    for name, part in pipe.components.items():
        other = base.components.get(name)
        if not isinstance(part, torch.nn.Module) or not isinstance(other, torch.nn.Module):
            continue
        if name.startswith("text_encoder"):
            pipe.register_modules(**{name: other})
            continue
        held = dict(other.named_parameters())
        for path, value in part.named_parameters():
            mine = held.get(path)
            if (
                mine is not None
                and mine.shape == value.shape
                and mine.dtype == value.dtype
                and mine.stride() == value.stride()
            ):
                value.data = mine.data


def use_stock(pipe: Any, recipe: str) -> None:
    """Do what the documentation of diffusers and PyTorch says.

    Raises:
        ValueError: the class has no repeated blocks.
    """
    import torch

    name = "unet" if getattr(pipe, "unet", None) is not None else "transformer"
    denoiser = getattr(pipe, name)
    if recipe.startswith("repeated"):
        mode = "max-autotune-no-cudagraphs" if recipe == "repeated-tuned" else "default"
        denoiser.compile_repeated_blocks(fullgraph=True, mode=mode)
    else:
        setattr(pipe, name, torch.compile(denoiser, mode=recipe, fullgraph=True))
    # The decoder's convolutions are cuDNN's whatever the mode; tuning each takes as long as all the rest.
    pipe.vae.to(memory_format=torch.channels_last)
    pipe.vae.decode = torch.compile(pipe.vae.decode, fullgraph=True)


def held_bytes(pipe: Any) -> int:
    """Return the bytes of all weights of a pipeline, each storage once."""
    import torch

    seen: dict[int, int] = {}
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            for value in [*part.parameters(), *part.buffers()]:
                storage = value.untyped_storage()
                seen[storage.data_ptr()] = storage.nbytes()
    return sum(seen.values())
