"""Stock torch.compile of the denoiser, as it comes and with inductor's freezing; also with fewer steps."""

from __future__ import annotations

from typing import Any

from diffopt.bench.peers.calling import Called, denoiser_name, plain, with_steps
from diffopt.bench.peers.peer import Peer

PEER = Peer(
    name="torch.compile of torch 2.13.0",
    kind="packaged",
    source="https://pytorch.org/docs/stable/torch.compiler.html",
    licence="BSD-3-Clause",
    arms={
        "default": {},
        "freezing": {"freezing": True},
        **{
            f"freezing, VAE too, DPM++, {steps} steps": {
                "freezing": True, "vae": True, "steps": steps, "solver": "dpm++"
            }
            for steps in (10, 3, 2)
        },
    },
)  # fmt: skip


def load(
    model: str,
    device: str,
    engines: Any,
    *,
    call: dict[str, Any],
    freezing: bool = False,
    vae: bool = False,
    steps: int = 0,
    solver: str = "",
) -> Any:
    """Return the pipeline with a compiled denoiser."""
    import torch

    if freezing:
        import torch._inductor.config as inductor

        inductor.freezing = True
    pipe = plain(model)
    name = denoiser_name(pipe)
    made = Called(pipe, with_steps(pipe, call, steps, solver, ""))
    setattr(pipe, name, torch.compile(getattr(pipe, name)))
    if vae:
        pipe.vae.decode = torch.compile(pipe.vae.decode)
    return made
