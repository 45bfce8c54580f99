"""The classic clean-ups, run between passes: loop-invariant motion, common subexpressions, dead code."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp
from xdsl.traits import is_side_effect_free
from xdsl.transforms.common_subexpression_elimination import cse
from xdsl.transforms.dead_code_elimination import dce
from xdsl.transforms.loop_invariant_code_motion import can_be_hoisted

from diffopt.ir.dialect import DenoiseOp, PredictOp, StepOp, loops


def clean_up(module: ModuleOp) -> None:
    """Move out of loops what every step would compute alike, compute once what is computed twice, drop what is unused."""
    for loop in loops(module):
        _hoist(loop)
    cse(module)
    dce(module)


def _hoist(loop: DenoiseOp) -> None:
    """Move what does not depend on the step ahead of its loop; an operation may free the one that reads it."""
    block = loop.parent_block()
    for op in list(loop.body.block.ops):
        # The network and the sampler keep state from step to step, whatever their operands say.
        if block is None or isinstance(op, PredictOp | StepOp) or not is_side_effect_free(op):
            continue
        if can_be_hoisted(op, loop.body):
            op.detach()  # type: ignore[no-untyped-call]
            block.insert_op_before(op, loop)
