"""The denoise loop: steps of a schedule, each asking the denoiser and stepping the latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from xdsl.dialects.builtin import Float64Type, FloatAttr, IntegerAttr, StringAttr, SymbolRefAttr, f64, i64
from xdsl.ir import Block, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import IsTerminator, Pure
from xdsl.utils.exceptions import VerifyException

from diffopt.ir.attributes import LatentType, TimestepType
from diffopt.ir.conditioning import BlendOp, ControlOp
from diffopt.ir.dataflow import GuideOp, PredictOp, StepOp

SIDES = ("above", "below")


@irdl_op_definition
class YieldOp(IRDLOperation):
    """Hand the latent to the next step."""

    name = "diffusion.yield"
    latent = operand_def(LatentType)
    traits = traits_def(IsTerminator())

    def __init__(self, latent: SSAValue) -> None:
        super().__init__(operands=[latent])

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_ssa_value(self.latent)
        printer.print_op_attributes(self.attributes)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        op = cls(parser.parse_operand())
        op.attributes.update(parser.parse_optional_attr_dict())
        return op


@irdl_op_definition
class DenoiseOp(IRDLOperation):
    """Steps `start` (inclusive) to `stop` (exclusive) of a scheduler's schedule.

    With `above 0.875` or `below 0.875`, those of them whose timestep is at least, or less than, that fraction of the
    training timesteps: two experts share a schedule so, and where it is divided is known at run time. `above ?` is a
    fraction that the model's configuration would tell. With `at 981.0`, the one step of the loop has this timestep.
    """

    name = "diffusion.denoise"
    side = opt_prop_def(StringAttr)
    boundary = opt_prop_def(FloatAttr)
    component = prop_def(SymbolRefAttr)
    start = prop_def(IntegerAttr)
    stop = prop_def(IntegerAttr)
    at = opt_prop_def(FloatAttr)
    initial = operand_def(LatentType)
    body = region_def("single_block")
    result = result_def(LatentType)
    traits = traits_def(Pure())

    def __init__(self, component: str, start: int, stop: int, initial: SSAValue, body: Region) -> None:
        super().__init__(
            operands=[initial],
            result_types=[initial.type if isinstance(initial.type, LatentType) else LatentType()],
            properties={
                "component": SymbolRefAttr(component),
                "start": IntegerAttr(start, i64),
                "stop": IntegerAttr(stop, i64),
            },
            regions=[body],
        )
        self.result.name_hint = "x"

    @property
    def bounds(self) -> tuple[int, int]:
        """First step and the step after the last."""
        return self.start.value.data, self.stop.value.data

    def set_bounds(self, start: int, stop: int) -> None:
        """Move the loop over the schedule."""
        self.properties["start"], self.properties["stop"] = IntegerAttr(start, i64), IntegerAttr(stop, i64)

    def set_side(self, side: str, boundary: float | None) -> None:
        """Let the loop run the steps on one side of a boundary; `None` is a boundary not known."""
        self.properties["side"] = StringAttr(side)
        if boundary is not None:
            self.properties["boundary"] = FloatAttr(boundary, f64)

    @property
    def timestep(self) -> float | None:
        """The timestep of an unrolled step."""
        return self.at.value.data if self.at is not None else None

    def set_timestep(self, timestep: float) -> None:
        """Fix the timestep of the loop's one step."""
        self.properties["at"] = FloatAttr(timestep, f64)

    @property
    def steps(self) -> tuple[StepOp, ...]:
        """What advances the latent."""
        return tuple(op for op in self.body.block.ops if isinstance(op, StepOp))

    @property
    def guide(self) -> GuideOp | None:
        """The guidance in this loop, if any."""
        return next((op for op in self.body.block.ops if isinstance(op, GuideOp)), None)

    @property
    def predicts(self) -> tuple[PredictOp, ...]:
        """The denoiser calls of one step."""
        return tuple(op for op in self.body.block.ops if isinstance(op, PredictOp))

    def verify_(self) -> None:
        start, stop = self.bounds
        if not 0 <= start < stop:
            raise VerifyException(f"a loop runs over at least one step, not {start} to {stop}")
        if self.at is not None and stop != start + 1:
            raise VerifyException(f"a timestep is that of one step, not of {start} to {stop}")
        if not isinstance(self.body.block.last_op, YieldOp):
            raise VerifyException("a denoise loop ends in diffusion.yield")
        if self.side is not None and self.side.data not in SIDES:
            raise VerifyException(f"a loop runs above or below a boundary, not {self.side.data}")

    def print(self, printer: Printer) -> None:
        start, stop = self.bounds
        printer.print_string(" ")
        printer.print_attribute(self.component)
        printer.print_string(f" steps {start} to {stop} ")
        if self.side is not None:
            printer.print_string(f"{self.side.data} ")
            if self.boundary is None:
                printer.print_string("? ")
            else:
                printer.print_float(self.boundary.value.data, Float64Type())
                printer.print_string(" ")
        if self.at is not None:
            printer.print_string("at ")
            printer.print_float(self.at.value.data, Float64Type())
            printer.print_string(" ")
        printer.print_string("from ")
        printer.print_ssa_value(self.initial)
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        component = parser.parse_symbol_name()
        parser.parse_keyword("steps")
        start = parser.parse_integer()
        parser.parse_keyword("to")
        stop = parser.parse_integer()
        side = next((side for side in SIDES if parser.parse_optional_keyword(side)), None)
        unknown = side is not None and parser.parse_optional_punctuation("?") is not None
        boundary = float(parser.parse_number()) if side is not None and not unknown else None
        timestep = float(parser.parse_number()) if parser.parse_optional_keyword("at") else None
        parser.parse_keyword("from")
        initial = parser.parse_operand()
        attributes = parser.parse_optional_attr_dict_with_keyword()
        op = cls(component.data, start, stop, initial, parser.parse_region())
        if side is not None:
            op.set_side(side, boundary)
        if timestep is not None:
            op.set_timestep(timestep)
        op.attributes.update(attributes.data if attributes else {})
        return op


def denoise_loop(
    scheduler: str,
    denoiser: str,
    start: int,
    stop: int,
    initial: SSAValue,
    embeddings: Sequence[SSAValue | Sequence[SSAValue]],
    guidance: float | None,
    *,
    in_turn: bool = False,
    scale: float | None = None,
    controls: Sequence[tuple[str, SSAValue]] = (),
    blend: tuple[SSAValue, SSAValue] | None = None,
) -> DenoiseOp:
    """Build a loop: guided from (unconditional, conditional) conditions, or plain from one.

    Args:
        embeddings: what each call of the denoiser is given; one value or several.
        scale: guidance scale that the denoiser takes as an input.
        controls: control nets asked at each step, with their images.
        blend: latent and mask of what is kept outside of the mask.
    """
    block = Block(arg_types=(initial.type, TimestepType()))
    latent, timestep = block.args
    latent.name_hint, timestep.name_hint = "x", "t"
    hints = ("eu", "ec") if guidance is not None else ("e",)
    predicts = []
    for given, hint in zip(embeddings, hints, strict=True):
        conditions = [given] if isinstance(given, SSAValue) else list(given)
        residuals = [ControlOp(name, latent, timestep, image, *conditions) for name, image in controls]
        block.add_ops(residuals)
        conditions += [residual.result for residual in residuals]
        predicts.append(PredictOp(denoiser, latent, timestep, *conditions, hint=hint, scale=scale))
        block.add_op(predicts[-1])
    prediction: SSAValue = predicts[-1].result
    if guidance is not None:
        guide = GuideOp(predicts[0].result, predicts[1].result, guidance, in_turn=in_turn)
        block.add_op(guide)
        prediction = guide.result
    step = StepOp(scheduler, latent, timestep, prediction)
    block.add_op(step)
    last: SSAValue = step.result
    if blend is not None:
        kept = BlendOp(last, *blend)
        block.add_op(kept)
        last = kept.result
    block.add_op(YieldOp(last))
    return DenoiseOp(scheduler, start, stop, initial, Region(block))
