"""The clean-ups between passes: motion out of loops, common subexpressions, dead code; and nothing that keeps state."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import DenoiseOp, EncodeOp, PredictOp, loops
from diffopt.ir.identity import parse_module, print_module
from diffopt.passes.cleanup import clean_up
from diffopt.passes.pipeline import Trace, applied

ENCODE = "%c = diffusion.encode @text_encoder(%prompt)"


def _written(standard_module: ModuleOp, old: str, new: str) -> ModuleOp:
    text = print_module(standard_module)
    assert old in text
    return parse_module(text.replace(old, new))


def test_what_each_step_would_encode_alike_is_encoded_ahead_of_the_loop(standard_module: ModuleOp) -> None:
    line = next(line for line in print_module(standard_module).splitlines() if "diffusion.predict" in line)
    inside = f"%d = diffusion.encode @text_encoder(%prompt)\n{line.replace('%c', '%d').replace('%u', '%d')}"
    module = _written(standard_module, line, inside)
    assert any(isinstance(op, EncodeOp) for loop in loops(module) for op in loop.body.block.ops)
    clean_up(module)
    assert not any(isinstance(op, EncodeOp) for loop in loops(module) for op in loop.body.block.ops)


def test_the_same_encoding_is_done_once(standard_module: ModuleOp) -> None:
    encode = next(
        line for line in print_module(standard_module).splitlines() if "encode @text_encoder(%prompt)" in line
    )
    twice = f"{encode}\n    %again = diffusion.encode @text_encoder(%prompt)"
    module = _written(standard_module, encode, twice)
    assert sum(isinstance(op, EncodeOp) for op in module.walk()) == 3
    clean_up(module)
    assert sum(isinstance(op, EncodeOp) for op in module.walk()) == 2


def test_a_module_as_lifted_and_one_unrolled_have_nothing_to_clean(standard_module: ModuleOp) -> None:
    for module in (
        standard_module.clone(),
        applied(Trace.parse("reduce-steps{steps=4},unroll-steps"), standard_module),
    ):
        before = print_module(module)
        clean_up(module)
        assert print_module(module) == before


def test_the_denoiser_stays_in_its_loop(standard_module: ModuleOp) -> None:
    module = standard_module.clone()
    clean_up(module)
    asked = [op for op in module.walk() if isinstance(op, PredictOp)]
    assert asked
    assert all(isinstance(op.parent_op(), DenoiseOp) for op in asked)
