"""What is compared on a GPU: the models, and for each the stock recipes and our passes."""

from __future__ import annotations

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
STOCK = (
    Arm("stock-repeated", "stock", recipe="repeated"),
    Arm("stock-repeated-tuned", "stock", recipe="repeated-tuned"),
    Arm("stock-max-autotune", "stock", recipe="max-autotune"),
)
VAE = "vae-channels-last,compile-vae{mode=max-autotune-no-cudagraphs}"
KERNELS = {
    "sdxl": "fuse-group-norm,fuse-geglu",
    "pixart": "fuse-modulation",
    "flux": "fuse-modulation,fuse-qk-norm",
}
"""Passes of Triton kernels, tried beside the same arm without them."""


def _ours(model: str, exact: str, near: str, traded: str) -> tuple[Arm, ...]:
    regional = f"{VAE},capture-step{{mode=regional}}"
    return (
        EAGER,
        STOCK[0],
        Arm("ours-regional", "ours", f"{exact},{regional}"),
        STOCK[1],
        Arm("ours-near", "ours", f"{near},{regional}"),
        Arm("ours-kernels", "ours", f"{exact},{KERNELS[model]},{regional}"),
        Arm("ours-traded", "ours", f"{traded},{regional}"),
        Arm("ours-exact", "ours", f"{exact},{VAE},capture-step{{mode=max-autotune}}"),
        STOCK[2],
    )


ARMS: Mapping[str, tuple[Arm, ...]] = {
    "sdxl": _ours(
        "sdxl",
        "channels-last,fuse-qkv,freeze-prompt",
        "channels-last,fuse-qkv,quantize-fp8,freeze-prompt,cache-features{interval=2},forecast-features",
        "reduce-steps{steps=30},channels-last,fuse-qkv,quantize-fp8,freeze-prompt,cache-features{interval=3}",
    ),
    "pixart": _ours(
        "pixart",
        "fuse-qkv,freeze-prompt",
        "fuse-qkv,quantize-fp8,freeze-prompt,cache-blocks{interval=2},forecast-features",
        "reduce-steps{steps=14},fuse-qkv,quantize-fp8,freeze-prompt,cache-blocks{interval=3}",
    ),
    "flux": _ours(
        "flux",
        "fuse-qkv",
        "fuse-qkv,quantize-fp8,cache-blocks{interval=2},forecast-features",
        "reduce-steps{steps=20 solver=own},fuse-qkv,quantize-fp8,cache-blocks{interval=3}",
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
