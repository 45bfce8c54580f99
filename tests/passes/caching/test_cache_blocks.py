"""A transformer's middle blocks are reused at the steps between full ones."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import loops
from diffopt.ir.emit_statements import statements
from diffopt.passes.base import Refusal
from diffopt.passes.caching.cache_blocks import CacheBlocks
from diffopt.passes.pipeline import Trace, applied, run


def test_both_calls_of_the_denoiser_follow_one_schedule(transformer_module: ModuleOp) -> None:
    module = applied(Trace((CacheBlocks(interval=10, first=2, last=1, warm=2),)), transformer_module)
    reuses = {predict.reuse for loop in loops(module) for predict in loop.predicts}
    (reuse,) = reuses
    assert reuse is not None
    assert (reuse.full, reuse.blocks, reuse.branch) == ((0, 1, 2, 12, 22, 32, 42), (2, 1), None)
    (statement,) = statements(module)
    assert statement.code == (
        'follow_step_plan({pipe}, component="transformer", steps=50, full=[0, 1, 2, 12, 22, 32, 42], blocks=(2, 1))'
    )


@pytest.mark.parametrize(
    ("first", "last", "refused"), [(0, 0, False), (3, 0, False), (4, 0, True), (2, 2, True), (0, 4, True)]
)
def test_refuses_to_reuse_no_block(transformer_module: ModuleOp, first: int, last: int, refused: bool) -> None:
    assert (CacheBlocks(first=first, last=last).refusal(transformer_module) is not None) is refused


def test_is_for_transformers_and_cache_features_for_unets(
    standard_module: ModuleOp, transformer_module: ModuleOp
) -> None:
    for module, trace in ((standard_module, "cache-blocks"), (transformer_module, "cache-features")):
        refused = run(Trace.parse(trace), module)
        assert isinstance(refused, Refusal)
        assert refused.rule == "architecture"


def test_a_window_keeps_the_schedule(transformer_module: ModuleOp) -> None:
    one, two = (
        applied(Trace.parse(trace), transformer_module)
        for trace in ("cache-blocks,guidance-window", "guidance-window,cache-blocks")
    )
    for module in (one, two):
        assert len({predict.reuse for loop in loops(module) for predict in loop.predicts}) == 1
