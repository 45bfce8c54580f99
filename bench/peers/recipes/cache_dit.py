"""cache-dit: blocks of a transformer are skipped while the first ones change little."""

from __future__ import annotations

from typing import Any

from diffopt.bench.peers.calling import Called, plain, with_steps
from diffopt.bench.peers.peer import Peer

PEER = Peer(
    name="cache-dit 1.5.3",
    kind="packaged",
    source="https://github.com/vipshop/cache-dit",
    licence="Apache-2.0",
    environment="cache-dit",
    models=("demo:shapes-pixart", "demo:shapes-flow"),
    arms={
        "DBCache F1B0, threshold 0.08": {"first": 1, "threshold": 0.08},
        "DBCache F1B0, threshold 0.24": {"first": 1, "threshold": 0.24},
        "DBCache F1B0, threshold 0.24, TaylorSeer": {"first": 1, "threshold": 0.24, "order": 1},
        "DBCache F1B0, threshold 0.24, 20 steps": {"first": 1, "threshold": 0.24, "steps": 20},
    },
    note="transformers alone; these have 5 or 6 blocks, of which the default would always run 8",
)


def load(
    model: str,
    device: str,
    engines: Any,
    *,
    call: dict[str, Any],
    first: int,
    threshold: float,
    order: int = 0,
    steps: int = 0,
) -> Any:
    """Return the pipeline with cache-dit on."""
    import cache_dit

    pipe = plain(model)
    made = Called(pipe, with_steps(pipe, call, steps, "", ""))
    forecast = cache_dit.TaylorSeerCalibratorConfig(taylorseer_order=order) if order else None
    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=first, Bn_compute_blocks=0, residual_diff_threshold=threshold, max_warmup_steps=4
    )
    cache_dit.enable_cache(pipe, cache_config=config, calibrator_config=forecast)
    return made
