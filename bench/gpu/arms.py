"""What is compared on a GPU: the models, and for each the stock recipes and our passes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["eager", "stock", "ours"]


@dataclass(frozen=True)
class Arm:
    """One way to run a pipeline.

    Args:
        trace: diffopt passes; the arm is the code emitted for them.
        recipe: of a stock arm, which lines of diffusers' and PyTorch's documentation are added to the eager pipeline.
        limit_s: build time after which the arm is given up.
    """

    name: str
    kind: Kind
    trace: str = ""
    recipe: str = ""
    limit_s: float = 240.0


EAGER = Arm("eager", "eager")
STOCK = {
    name: Arm(f"stock-{name}", "stock", recipe=name)
    for name in ("repeated", "repeated-tuned", "default", "max-autotune")
}
VAE = "vae-channels-last,compile-vae"
CACHES = r"cache-\w+\{[^}]*\},forecast-features,"
"""Left out of near, to tell what 8 bits cost from what caches cost."""


def _ours(model: str, exact: str, kernels: str, near: str, traded: str, stock: tuple[str, ...]) -> tuple[Arm, ...]:
    """Return the arms of a model, the most wanted first; `stock` names stock arms, of which the first is built first."""
    made = f"{VAE},capture-step{{mode=regional}}"
    return (
        EAGER,
        STOCK[stock[0]],
        Arm("ours-regional", "ours", f"{exact},{kernels},{made}"),
        Arm("ours-near", "ours", f"{near},{made}"),
        Arm("ours-traded", "ours", f"{traded},{made}"),
        *(STOCK[name] for name in stock[1:]),
        Arm("ours-fp8", "ours", f"{re.sub(CACHES, '', near)},{made}"),
        Arm("ours-whole", "ours", f"{exact},{kernels},{VAE},capture-step{{mode=default}}"),
        Arm("ours-plain", "ours", f"{exact},{made}"),
    )


ARMS: Mapping[str, tuple[Arm, ...]] = {
    "sdxl": _ours(
        "sdxl",
        "channels-last,fuse-qkv,freeze-prompt",
        "fuse-group-norm,fuse-group-norm{part=vae}",
        "channels-last,fuse-qkv,quantize-fp8,freeze-prompt,cache-features{interval=2},forecast-features,"
        "fuse-group-norm,fuse-group-norm{part=vae}",
        "reduce-steps{steps=30},channels-last,fuse-qkv,quantize-fp8,freeze-prompt,cache-features{interval=3},"
        "forecast-features,fuse-group-norm,fuse-group-norm{part=vae}",
        stock=("default", "repeated", "max-autotune"),
    ),
    "pixart": _ours(
        "pixart",
        "fuse-qkv,freeze-prompt",
        "fuse-modulation,fuse-group-norm{part=vae}",
        "fuse-qkv,quantize-fp8,freeze-prompt,cache-blocks{interval=2},forecast-features,fuse-group-norm{part=vae}",
        "reduce-steps{steps=14},fuse-qkv,quantize-fp8,freeze-prompt,cache-blocks{interval=3},forecast-features,"
        "fuse-group-norm{part=vae}",
        stock=("default", "max-autotune"),
    ),
    "flux": _ours(
        "flux",
        "fuse-qkv",
        "fuse-modulation,fuse-qk-norm,fuse-group-norm{part=vae}",
        "fuse-qkv,quantize-fp8,cache-blocks{interval=2},forecast-features,fuse-group-norm{part=vae}",
        "reduce-steps{steps=20 solver=own},fuse-qkv,quantize-fp8,cache-blocks{interval=3},forecast-features,"
        "fuse-group-norm{part=vae}",
        stock=("repeated", "repeated-tuned", "max-autotune"),
    ),
}
"""Near and traded are what the passes promise; on random weights no image can be judged, only the denoiser's error."""

SHARES: Mapping[str, float] = {"sdxl": 0.34, "pixart": 0.2, "flux": 0.46}
"""Parts of the measuring time, about as long as their calls are."""

PROMPTS = (
    "a red fox in the snow at dawn, oil painting",
    "an old lighthouse over a stormy sea, photograph",
    "a bowl of oranges on a wooden table, still life",
    "a city street at night in the rain, neon lights",
    "a hot air balloon above green hills, watercolour",
)
"""Of about one length, as the tokenizer of bytes counts them."""
