"""Stage `unet`: the denoiser, on the latents of rendered scenes and the states of the frozen text encoder."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffopt.bench.models.shapes import parts
from diffopt.bench.models.shapes.captions import caption
from diffopt.bench.models.shapes.scenes import Scene, random_scenes
from diffopt.bench.models.shapes.train_text import encode
from diffopt.bench.models.shapes.training import WORK, cosine, drawn, log

if TYPE_CHECKING:
    import torch
    from diffusers import UNet2DConditionModel

SCENES, STEPS, BATCH, RATE = 30_000, 5000, 48, 1e-3
WORKERS = 2
EMA, DROPOUT = 0.9985, 0.1
CHECKPOINT = 200
"""Steps between two checkpoints; a run that was stopped goes on from the latest."""
_STATE, _LATENTS = WORK / "unet.safetensors", WORK / "latents.safetensors"


def run() -> None:
    """Train with v-prediction in WORKERS processes of one thread each, save the moving average of the weights.

    One process with two threads keeps only 1.4 of two cores busy; two that share each batch keep both busy.
    """
    import torch

    if not _LATENTS.exists():
        _encode()
    with tempfile.TemporaryDirectory(dir=WORK) as meeting:
        torch.multiprocessing.spawn(_work, args=(f"file://{meeting}/store",), nprocs=WORKERS)  # type: ignore[attr-defined,no-untyped-call]


def _work(rank: int, meeting: str) -> None:
    import torch
    from safetensors.torch import load_file
    from torch import distributed

    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORKERS)
    torch.set_num_threads(1)
    torch.manual_seed(7)
    scenes = random_scenes(SCENES, random.Random(7), "train")
    latents = load_file(_LATENTS)["latents"]
    alphas = parts.new_scheduler().alphas_cumprod.float()
    encoder, tokenizer = parts.load("text_encoder").eval().requires_grad_(False), parts.load("tokenizer")
    unet = parts.new_unet().to(memory_format=torch.channels_last)
    mean = parts.new_unet()
    mean.load_state_dict(unet.state_dict())
    optimizer = torch.optim.AdamW(unet.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-3)
    first = _resume(unet, mean, optimizer)
    if rank == 0:
        log("unet", f"starts at step {first}")
    smooth = 0.0
    for step in range(first, STEPS):
        rng, noise_rng = np.random.default_rng((7, step, rank)), torch.Generator().manual_seed(WORKERS * step + rank)
        rows = rng.integers(SCENES, size=BATCH // WORKERS)
        states = encode(encoder, tokenizer, _texts(scenes, rows, WORKERS * step + rank))
        noise = torch.randn((len(rows), *parts.LATENT), generator=noise_rng)
        times = torch.from_numpy(_times(rng, len(rows)))
        signal = alphas[times].sqrt()[:, None, None, None]
        spread = (1 - alphas[times]).sqrt()[:, None, None, None]
        clean = latents[torch.from_numpy(rows)].float()
        noisy = (signal * clean + spread * noise).contiguous(memory_format=torch.channels_last)
        loss = (unet(noisy, times, states).sample - (signal * noise - spread * clean)).square().mean()
        for group in optimizer.param_groups:
            group["lr"] = RATE * _rate(step)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        _average([weight.grad for weight in unet.parameters() if weight.grad is not None])
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        if rank:
            continue
        _follow(mean, unet, min(EMA, (1 + step) / (10 + step)))
        smooth = loss.item() if step == first else 0.99 * smooth + 0.01 * loss.item()
        if (step + 1) % 200 == 0:
            log("unet", f"{step + 1}/{STEPS} loss {smooth:.4f}")
        if (step + 1) % CHECKPOINT == 0 or step + 1 == STEPS:
            parts.save("unet", mean)
            _keep(unet, mean, optimizer, step + 1)
    distributed.destroy_process_group()


def _average(gradients: list[torch.Tensor]) -> None:
    """Replace the gradients by their mean over the workers."""
    import torch
    from torch import distributed

    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view(gradient.shape)).div_(WORKERS)
        start += gradient.numel()


def _texts(scenes: list[Scene], rows: np.ndarray, step: int) -> list[str]:
    """Word the scenes anew at every step, one in ten as the empty prompt."""
    rng = random.Random(step)
    return ["" if rng.random() < DROPOUT else caption(scenes[row], rng) for row in rows]


def _times(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw time steps int64 [count]: half from all, half from the noisy end, where the prompt decides."""
    return np.where(rng.random(count) < 0.5, rng.integers(0, 1000, count), rng.integers(700, 1000, count))


def _rate(step: int) -> float:
    """Return the learning-rate factor: warm-up, constant, and a cosine over the last third of the steps."""
    late = STEPS * 2 // 3
    return min(1.0, (step + 1) / 100) if step < late else cosine(step - late, STEPS - late, warmup=0)


def _encode() -> None:
    """Write the latents float16 [SCENES, *LATENT] of rendered scenes into the work folder."""
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(WORKERS)
    images = drawn(SCENES, 7, "train").images
    vae = parts.load("vae").to(memory_format=torch.channels_last)
    encoded = []
    with torch.no_grad():
        for start in range(0, SCENES, 100):
            pixels = torch.from_numpy(images[start : start + 100]).permute(0, 3, 1, 2).float() / 127.5 - 1
            encoded.append(vae.encode(pixels).latent_dist.mean.half())
    WORK.mkdir(parents=True, exist_ok=True)
    save_file({"latents": torch.cat(encoded).contiguous()}, _LATENTS)


def _follow(mean: UNet2DConditionModel, unet: UNet2DConditionModel, decay: float) -> None:
    import torch

    with torch.no_grad():
        averages = [weight for weight in mean.parameters()]
        torch._foreach_lerp_(averages, [weight.detach() for weight in unet.parameters()], 1 - decay)


def _keep(
    unet: UNet2DConditionModel, mean: UNet2DConditionModel, optimizer: torch.optim.AdamW, step: int, path: Path = _STATE
) -> None:
    import torch
    from safetensors.torch import save_file

    state = {f"unet.{name}": value for name, value in unet.state_dict().items()}
    state |= {f"mean.{name}": value for name, value in mean.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        state |= {f"adam.{index}.{name}": value for name, value in moments.items()}
    state["step"] = torch.tensor(step)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    save_file({name: value.contiguous() for name, value in state.items()}, fresh)
    fresh.replace(path)


def _resume(
    unet: UNet2DConditionModel, mean: UNet2DConditionModel, optimizer: torch.optim.AdamW, path: Path = _STATE
) -> int:
    """Load the latest checkpoint, if there is one, and return the step to go on from."""
    import torch
    from safetensors.torch import load_file

    if not path.exists():
        return 0
    state = load_file(path)
    step = int(state.pop("step"))
    for prefix, network in (("unet.", unet), ("mean.", mean)):
        network.load_state_dict({name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in state.items():
        if name.startswith("adam."):
            _, index, kind = name.split(".")
            moments.setdefault(int(index), {})[kind] = (
                value.to(memory_format=torch.channels_last) if value.ndim == 4 else value
            )
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return step
