"""The unconditional half is computed at some guided steps only."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import loops
from diffopt.ir.emit_statements import statements
from diffopt.ir.identity import parse_module, print_module
from diffopt.passes.base import Refusal
from diffopt.passes.guidance.reuse_unconditional import ReuseUnconditional
from diffopt.passes.pipeline import Trace, applied, key, run


def test_the_first_steps_and_every_few_after_them_are_fresh(standard_module: ModuleOp) -> None:
    module = applied(Trace((ReuseUnconditional(every=10, warm=3, reuse="prediction"),)), standard_module)
    guide = loops(module)[0].guide
    assert guide is not None
    assert guide.fresh_steps == (0, 1, 2, 3, 13, 23, 33, 43)
    assert print_module(parse_module(print_module(module))) == print_module(module)
    (statement,) = statements(module)
    assert statement.code.endswith('steps=50, fresh=[0, 1, 2, 3, 13, 23, 33, 43], reuse="prediction")')


def test_a_window_commutes(standard_module: ModuleOp) -> None:
    one, two = (
        key(Trace.parse(trace), standard_module)
        for trace in ("guidance-window,reuse-unconditional", "reuse-unconditional,guidance-window")
    )
    assert one == two


def test_steps_are_reduced_first(standard_module: ModuleOp) -> None:
    refused = run(Trace.parse("reuse-unconditional,reduce-steps"), standard_module)
    assert isinstance(refused, Refusal)
    assert refused.rule == "steps-before-cache"


def test_refuses_a_window_of_one_step(standard_module: ModuleOp) -> None:
    refused = run(Trace.parse("guidance-window{stop=0.02},reuse-unconditional"), standard_module)
    assert isinstance(refused, Refusal)
    assert "leave none to reuse" in refused.reason
