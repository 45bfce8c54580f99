"""torch.compile is one transform of the denoiser, after quantization and instead of an engine."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoiser_of
from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace, applied, run


def test_comes_after_quantization(standard_module: ModuleOp) -> None:
    module = applied(Trace.parse("quantize,compile"), standard_module)
    assert [t.transform.data for t in denoiser_of(module).transforms] == ["quantize", "compile"]


@pytest.mark.parametrize("scope", ["denoiser", "components", "pipeline"])
def test_refuses_an_engine_and_an_engine_refuses_it(standard_module: ModuleOp, scope: str) -> None:
    for trace in (f"export{{scope={scope}}},compile", f"compile,export{{scope={scope}}}"):
        result = run(Trace.parse(trace), standard_module)
        assert isinstance(result, Refusal)
        assert result.rule in ("one-of", "one-engine")
