"""What recipes share: the plain pipeline, fewer steps as diffusers documents them, and a call with defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SOLVERS = {
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "deis": ("DEISMultistepScheduler", {"algorithm_type": "deis"}),
    "ddim": ("DDIMScheduler", {}),
}
"""Classes of diffusers by a short name."""


class Called:
    """A pipeline whose call has these defaults; all else is the pipeline's own."""

    def __init__(self, pipe: Any, call: Mapping[str, Any]) -> None:
        self.pipe, self.call = pipe, dict(call)

    def __call__(self, prompt: Any, **given: Any) -> Any:
        return self.pipe(prompt, **{**self.call, **given})

    def __getattr__(self, name: str) -> Any:
        if name in ("pipe", "call"):
            raise AttributeError(name)
        return getattr(self.pipe, name)


def plain(model: str, dtype: str = "float32") -> Any:
    """Return the pipeline as diffusers loads it."""
    import torch
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(model, torch_dtype=getattr(torch, dtype))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def denoiser_name(pipe: Any) -> str:
    """Return `unet` or `transformer`."""
    return "unet" if getattr(pipe, "unet", None) is not None else "transformer"


def with_steps(pipe: Any, call: Mapping[str, Any], steps: int, solver: str, spacing: str) -> dict[str, Any]:
    """Give the pipeline another scheduler and return the call with so many steps.

    Args:
        steps: 0 for the baseline's.
        solver: a name in SOLVERS, or empty for the pipeline's own. spacing: of its timesteps; empty for its own.
    """
    import diffusers

    if solver:
        name, options = SOLVERS[solver]
        own = {"timestep_spacing": spacing} if spacing else {}
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **options, **own)
    return {**call, "num_inference_steps": steps} if steps else dict(call)


def forgive_torchvision() -> None:
    """Let a torchvision that was built for CUDA be imported beside a torch that was not: its operators are not needed.

    Without this, packages that ask for torchvision cannot be imported where only such a build of it is to be had: `operator
    torchvision::nms does not exist`.
    """
    import torch.library

    register = torch.library.register_fake

    def forgiving(op: Any, *given: Any, **named: Any) -> Any:
        if not (isinstance(op, str) and op.startswith("torchvision::")):
            return register(op, *given, **named)
        return lambda function: function

    torch.library.register_fake = forgiving
