"""Pruna: one call with a configuration of named algorithms."""

from __future__ import annotations

from typing import Any

from diffopt.bench.peers.calling import Called, forgive_torchvision, plain, with_steps
from diffopt.bench.peers.peer import Peer

PEER = Peer(
    name="Pruna 0.3.4",
    kind="packaged",
    source="https://github.com/PrunaAI/pruna",
    licence="Apache-2.0",
    environment="pruna",
    arms={
        "deepcache": {"algorithms": {"deepcache": {"interval": 2}}},
        "torch_compile": {"algorithms": {"torch_compile": {}}},
        "deepcache, torch_compile": {"algorithms": {"deepcache": {"interval": 2}, "torch_compile": {}}},
        "qkv_diffusers": {"algorithms": {"qkv_diffusers": {}}},
        "fastercache": {"algorithms": {"fastercache": {}}},
        "pab": {"algorithms": {"pab": {}}},
        "half": {"algorithms": {"half": {}}},
        "torchao int8dq": {"algorithms": {"torchao": {"quant_type": "int8dq"}}},
        "torch_compile, DPM++, 3 steps": {"algorithms": {"torch_compile": {}}, "steps": 3, "solver": "dpm++"},
    },
)


def load(
    model: str,
    device: str,
    engines: Any,
    *,
    call: dict[str, Any],
    algorithms: dict[str, dict[str, Any]],
    steps: int = 0,
    solver: str = "",
) -> Any:
    """Return the pipeline, smashed."""
    import os

    os.environ["PRUNA_METRICS_ENABLED"] = "false"  # its import begins to report calls over the network
    forgive_torchvision()
    from pruna import SmashConfig, smash

    pipe = plain(model)
    made = with_steps(pipe, call, steps, solver, "")
    config = SmashConfig(device="cpu")
    config.add(algorithms)
    return Called(smash(model=pipe, smash_config=config), made)
