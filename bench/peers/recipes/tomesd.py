"""tomesd: tokens that are alike are merged before attention."""

from __future__ import annotations

from typing import Any

from diffopt.bench.peers.calling import Called, plain
from diffopt.bench.peers.peer import Peer

PEER = Peer(
    name="tomesd 0.1.3",
    kind="packaged",
    source="https://github.com/dbolya/tomesd",
    licence="MIT",
    environment="tomesd",
    models=("demo:shapes",),
    arms={
        "ratio 0.5": {"ratio": 0.5, "downsample": 1},
        "ratio 0.5, max_downsample 4": {"ratio": 0.5, "downsample": 4},
    },
    note="UNets alone; by default it patches only the highest resolution, where this UNet has no attention",
)


def load(model: str, device: str, engines: Any, *, call: dict[str, Any], ratio: float, downsample: int) -> Any:
    """Return the pipeline with merged tokens."""
    import tomesd

    pipe = plain(model)
    tomesd.apply_patch(pipe, ratio=ratio, max_downsample=downsample)
    return Called(pipe, call)
