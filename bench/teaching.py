"""The worker's half of teacher forcing: run one call while the denoiser's inputs are written down, or given.

With inputs given, each call of the denoiser sees the latents that the baseline's saw, whatever it answered before: its
errors are not amplified along the way, and what is left is the error of the denoiser itself, step by step. The latents that
the program would have used itself are kept too: they tell what guidance and scheduler made of the answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

DENOISERS = ("unet", "transformer")
LAYER_SAMPLES = 64


def denoiser_of(pipe: Any) -> Any | None:
    """Return the pipeline's denoiser, or None where it has none that can be asked."""
    import torch

    found = (getattr(pipe, name, None) for name in DENOISERS)
    return next((part for part in found if isinstance(part, torch.nn.Module)), None)


def taught(pipe: Any, call: Callable[[], object], inputs: Path | None, out: Path, *, layers: bool) -> dict[str, object]:
    """Run a call and write the denoiser's outputs; return how many calls it took and the denoiser's dtype.

    Args:
        inputs: latents of each denoiser call to use instead of its own (`in.0`, `in.1`, ...); None to write down both.
        out: safetensors file of float32: `out.N`, and `in.N`, the program's own latents.
        layers: also write samples of what each layer gives out in each call, `layer.N.ORDER.SIZE.NAME`.
    """
    from safetensors.torch import load_file, save_file

    from diffopt.backends.runtime.capture_step import CAPTURED

    denoiser = denoiser_of(pipe)
    if denoiser is None or CAPTURED in denoiser.__dict__:  # captured steps, like engines of the whole, cannot be asked
        save_file({}, str(out))
        return {"calls": 0, "dtype": ""}
    given = None if inputs is None else load_file(str(inputs))
    kept: dict[str, Any] = {}
    with _wrapped(denoiser, given, kept, layers):
        call()
    count = sum(name.startswith("out.") for name in kept)
    save_file({name: value.detach().float().cpu().contiguous().clone() for name, value in kept.items()}, str(out))
    dtype = next((str(p.dtype).removeprefix("torch.") for p in denoiser.parameters() if p.is_floating_point()), "")
    return {"calls": count, "dtype": dtype}


@contextlib.contextmanager
def _wrapped(denoiser: Any, given: dict[str, Any] | None, kept: dict[str, Any], layers: bool) -> Iterator[None]:
    from diffopt.backends.runtime.replaced import replaced

    forward, calls = denoiser.forward, [0]

    def teach(*args: Any, **kwargs: Any) -> Any:
        index = calls[0]
        calls[0] += 1
        name = next((n for n in ("sample", "hidden_states") if n in kwargs), None)
        latents = kwargs[name] if name else args[0]
        kept[f"in.{index}"] = latents
        if given is not None:
            wanted = given.get(f"in.{index}")
            if wanted is not None and wanted.shape == latents.shape:
                latents = wanted.to(latents.device, latents.dtype)
                args, kwargs = (args, {**kwargs, name: latents}) if name else ((latents, *args[1:]), kwargs)
        with _observed(denoiser, kept, index) if layers else contextlib.nullcontext():
            result = forward(*args, **kwargs)
        kept[f"out.{index}"] = result[0] if isinstance(result, tuple) else result.sample
        return result

    with replaced(denoiser, forward=teach):
        yield


@contextlib.contextmanager
def _observed(denoiser: Any, kept: dict[str, Any], index: int) -> Iterator[None]:
    """Keep evenly spread samples of what each layer gives out in the first time it is asked in this call."""
    import torch

    seen: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple | list) and output else output
            if isinstance(value, torch.Tensor) and value.is_floating_point() and name not in seen:
                flat = value.detach().reshape(-1)
                seen.append(name)
                kept[f"layer.{index}.{len(seen):05d}.{flat.numel()}.{name}"] = flat[
                    :: max(1, flat.numel() // LAYER_SAMPLES)
                ][:LAYER_SAMPLES].clone()

        return hook

    hooks = [part.register_forward_hook(watch(name)) for name, part in denoiser.named_modules() if name]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def generators(seeds: Sequence[int]) -> list[Any]:
    """Return one generator a seed, on the CPU: the same noise on every device."""
    import torch

    return [torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds]
