"""A measured drift decides which steps run in full."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import loops
from diffopt.ir.errors import DiffoptError
from diffopt.passes.caching.cache_adaptive import CacheAdaptive
from diffopt.passes.pipeline import Trace, applied, key


def test_full_steps_stand_where_the_drift_is(standard_module: ModuleOp) -> None:
    drift = ",".join(["0.5"] * 5 + ["0.001"] * 44)
    module = applied(Trace((CacheAdaptive(drift=drift, threshold=0.4, longest=50),)), standard_module)
    assert loops(module)[0].predicts[0].full_steps == (0, 1, 2, 3, 4, 5)


def test_without_a_drift_it_is_cache_features(standard_module: ModuleOp) -> None:
    assert key(Trace.parse("cache-adaptive{threshold=0.05}"), standard_module) == key(
        Trace.parse("cache-features"), standard_module
    )


def test_a_transformer_keeps_its_first_block(transformer_module: ModuleOp) -> None:
    reuse = loops(applied(Trace((CacheAdaptive(),)), transformer_module))[0].predicts[0].reuse
    assert reuse is not None
    assert reuse.blocks == (1, 0)


@pytest.mark.parametrize("text", ["a", "0.1,", "-1", "nan", "inf", "0.1;0.2"])
def test_a_drift_is_numbers_from_0_up(text: str) -> None:
    with pytest.raises(DiffoptError, match="must be numbers from 0 up"):
        CacheAdaptive(drift=text)
