"""DeepCache: deep features of the UNet are kept over steps."""

from __future__ import annotations

from typing import Any

from diffopt.bench.peers.calling import Called, plain, with_steps
from diffopt.bench.peers.peer import Peer

PEER = Peer(
    name="DeepCache 0.1.1",
    kind="packaged",
    source="https://github.com/horseee/DeepCache",
    licence="Apache-2.0",
    environment="deepcache",
    models=("demo:shapes",),
    arms={
        "interval 2": {"interval": 2},
        "interval 3": {"interval": 3},
        "interval 5": {"interval": 5},
        "interval 2, 20 steps": {"interval": 2, "steps": 20},
    },
    note="UNets alone",
)


def load(
    model: str, device: str, engines: Any, *, call: dict[str, Any], interval: int, steps: int = 0, solver: str = ""
) -> Any:
    """Return the pipeline with DeepCache on."""
    from DeepCache import DeepCacheSDHelper

    pipe = plain(model)
    made = Called(pipe, with_steps(pipe, call, steps, solver, ""))
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=interval, cache_branch_id=0)
    helper.enable()
    return made
