"""Fused projections are for attention of which nothing is lost."""

from __future__ import annotations

import pytest

from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace, run
from diffopt.sources import lift


def test_refuses_a_transformer_whose_queries_and_keys_are_normalized() -> None:
    found = run(Trace.parse("fuse-qkv"), lift("demo:shapes-flow").module)
    assert isinstance(found, Refusal)
    assert "leaves out the norms" in found.reason


@pytest.mark.parametrize("name", ["demo:shapes", "demo:shapes-pixart", "demo:shapes-xl"])
def test_takes_models_without_such_norms(name: str) -> None:
    assert not isinstance(run(Trace.parse("fuse-qkv"), lift(name).module), Refusal)
