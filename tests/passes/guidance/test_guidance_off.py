"""Without guidance, nothing unconditional is left."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.emit_statements import call_arguments
from diffopt.ir.identity import print_module
from diffopt.passes.pipeline import Trace, applied, key


def test_the_call_has_a_scale_of_1_and_the_negative_prompt_is_not_encoded(standard_module: ModuleOp) -> None:
    module = applied(Trace.parse("guidance-off"), standard_module)
    assert call_arguments(module)["guidance_scale"] == 1.0
    text = print_module(module)
    assert text.count("diffusion.encode") == text.count("diffusion.predict") == 1


def test_it_is_the_empty_window(standard_module: ModuleOp) -> None:
    assert key(Trace.parse("guidance-off"), standard_module) == key(
        Trace.parse("guidance-window{stop=0}"), standard_module
    )
