"""What a call computes: encode, noise, denoise, predict, guide, step, decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from xdsl.dialects.builtin import ArrayAttr, Float64Type, FloatAttr, IntegerAttr, SymbolRefAttr, f64, i64
from xdsl.ir import Attribute, Block, Region, SSAValue
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

from diffopt.ir.attributes import EmbeddingType, ImageType, LatentType, PredictionType, TextType, TimestepType


class _CallOp(IRDLOperation):
    """Shared text form of `%r = diffusion.op @component(%a, %b)`: result and operand types follow from the op."""

    OPERANDS: ClassVar[tuple[Attribute, ...]]
    RESULT: ClassVar[Attribute]

    def _print_suffix(self, printer: Printer) -> None:
        """Print what stands after the operands."""

    def _parse_suffix(self, parser: Parser) -> None:
        """Read what stands after the operands."""

    def print(self, printer: Printer) -> None:
        symbol = self.properties.get("component")
        if symbol is not None:
            printer.print_string(" ")
            printer.print_attribute(symbol)
        with printer.in_parens():
            printer.print_list(self.operands, printer.print_ssa_value)
        self._print_suffix(printer)
        printer.print_op_attributes(self.attributes, print_keyword=True)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        symbol = parser.parse_optional_symbol_name()
        position = parser.pos
        names = parser.parse_comma_separated_list(parser.Delimiter.PAREN, parser.parse_unresolved_operand)
        operands = parser.resolve_operands(names, cls.OPERANDS, position)
        properties: dict[str, Attribute] = {} if symbol is None else {"component": SymbolRefAttr(symbol)}
        op = cls.create(operands=operands, result_types=[cls.RESULT], properties=properties)
        op._parse_suffix(parser)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        op.attributes.update(attributes.data if attributes else {})
        return op


@irdl_op_definition
class EncodeOp(_CallOp):
    """Encode a prompt."""

    name = "diffusion.encode"
    OPERANDS: ClassVar[tuple[Attribute, ...]] = (TextType(),)
    RESULT: ClassVar[Attribute] = EmbeddingType()
    component = prop_def(SymbolRefAttr)
    text = operand_def(TextType)
    result = result_def(EmbeddingType)
    traits = traits_def(Pure())

    def __init__(self, component: str, text: SSAValue, hint: str = "c") -> None:
        super().__init__(
            operands=[text], result_types=[EmbeddingType()], properties={"component": SymbolRefAttr(component)}
        )
        self.result.name_hint = hint


@irdl_op_definition
class NoiseOp(_CallOp):
    """Draw the initial latent."""

    name = "diffusion.noise"
    OPERANDS: ClassVar[tuple[Attribute, ...]] = (i64,)
    RESULT: ClassVar[Attribute] = LatentType()
    seed = operand_def(i64)
    result = result_def(LatentType)
    traits = traits_def(Pure())

    def __init__(self, seed: SSAValue) -> None:
        super().__init__(operands=[seed], result_types=[LatentType()])
        self.result.name_hint = "x0"


@irdl_op_definition
class PredictOp(_CallOp):
    """Ask the denoiser about a latent.

    With `full at [..]`, only those steps of the schedule run the whole network; the others reuse its deep features,
    computed at the last full step, and run the blocks above `branch` alone (DeepCache, arXiv 2312.00858).
    """

    name = "diffusion.predict"
    OPERANDS: ClassVar[tuple[Attribute, ...]] = (LatentType(), TimestepType(), EmbeddingType())
    RESULT: ClassVar[Attribute] = PredictionType()
    component = prop_def(SymbolRefAttr)
    full = opt_prop_def(ArrayAttr[IntegerAttr])
    branch = opt_prop_def(IntegerAttr)
    sample = operand_def(LatentType)
    timestep = operand_def(TimestepType)
    embedding = operand_def(EmbeddingType)
    result = result_def(PredictionType)
    traits = traits_def(Pure())

    def __init__(
        self, component: str, sample: SSAValue, timestep: SSAValue, embedding: SSAValue, hint: str = "e"
    ) -> None:
        super().__init__(
            operands=[sample, timestep, embedding],
            result_types=[PredictionType()],
            properties={"component": SymbolRefAttr(component)},
        )
        self.result.name_hint = hint

    @property
    def full_steps(self) -> tuple[int, ...] | None:
        """Indices of the steps that run in full; `None` where all do."""
        return None if self.full is None else tuple(i.value.data for i in self.full.data)

    def set_full_steps(self, steps: Sequence[int], branch: int) -> None:
        """Mark the steps that run in full."""
        self.properties["full"] = ArrayAttr([IntegerAttr(i, i64) for i in steps])
        self.properties["branch"] = IntegerAttr(branch, i64)

    def _print_suffix(self, printer: Printer) -> None:
        steps = self.full_steps
        if steps is not None and self.branch is not None:
            printer.print_string(f" full at {list(steps)} branch {self.branch.value.data}")

    def _parse_suffix(self, parser: Parser) -> None:
        if not parser.parse_optional_keyword("full"):
            return
        parser.parse_keyword("at")
        steps = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer)
        parser.parse_keyword("branch")
        self.set_full_steps(steps, parser.parse_integer())


@irdl_op_definition
class GuideOp(IRDLOperation):
    """Classifier-free guidance: `uncond + scale · (cond - uncond)` (arXiv 2207.12598)."""

    name = "diffusion.guide"
    scale = prop_def(FloatAttr)
    uncond = operand_def(PredictionType)
    cond = operand_def(PredictionType)
    result = result_def(PredictionType)
    traits = traits_def(Pure())

    def __init__(self, uncond: SSAValue, cond: SSAValue, scale: float) -> None:
        super().__init__(
            operands=[uncond, cond], result_types=[PredictionType()], properties={"scale": FloatAttr(scale, f64)}
        )
        self.result.name_hint = "e"

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_list(self.operands, printer.print_ssa_value)
        printer.print_string(" by ")
        printer.print_float(self.scale.value.data, Float64Type())
        printer.print_op_attributes(self.attributes, print_keyword=True)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        uncond = parser.parse_operand()
        parser.parse_punctuation(",")
        cond = parser.parse_operand()
        parser.parse_keyword("by")
        op = cls(uncond, cond, float(parser.parse_number()))
        attributes = parser.parse_optional_attr_dict_with_keyword()
        op.attributes.update(attributes.data if attributes else {})
        return op


@irdl_op_definition
class StepOp(_CallOp):
    """Advance a latent by one step of the scheduler."""

    name = "diffusion.step"
    OPERANDS: ClassVar[tuple[Attribute, ...]] = (LatentType(), TimestepType(), PredictionType())
    RESULT: ClassVar[Attribute] = LatentType()
    component = prop_def(SymbolRefAttr)
    sample = operand_def(LatentType)
    timestep = operand_def(TimestepType)
    prediction = operand_def(PredictionType)
    result = result_def(LatentType)
    traits = traits_def(Pure())

    def __init__(self, component: str, sample: SSAValue, timestep: SSAValue, prediction: SSAValue) -> None:
        super().__init__(
            operands=[sample, timestep, prediction],
            result_types=[LatentType()],
            properties={"component": SymbolRefAttr(component)},
        )
        self.result.name_hint = "n"


@irdl_op_definition
class YieldOp(IRDLOperation):
    """Hand the latent to the next step."""

    name = "diffusion.yield"
    latent = operand_def(LatentType)
    traits = traits_def(IsTerminator())

    assembly_format = "$latent attr-dict"

    def __init__(self, latent: SSAValue) -> None:
        super().__init__(operands=[latent])


@irdl_op_definition
class DenoiseOp(IRDLOperation):
    """Steps `start` (inclusive) to `stop` (exclusive) of a scheduler's schedule."""

    name = "diffusion.denoise"
    component = prop_def(SymbolRefAttr)
    start = prop_def(IntegerAttr)
    stop = prop_def(IntegerAttr)
    initial = operand_def(LatentType)
    body = region_def("single_block")
    result = result_def(LatentType)
    traits = traits_def(Pure())

    def __init__(self, component: str, start: int, stop: int, initial: SSAValue, body: Region) -> None:
        super().__init__(
            operands=[initial],
            result_types=[LatentType()],
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
        if not isinstance(self.body.block.last_op, YieldOp):
            raise VerifyException("a denoise loop ends in diffusion.yield")

    def print(self, printer: Printer) -> None:
        start, stop = self.bounds
        printer.print_string(" ")
        printer.print_attribute(self.component)
        printer.print_string(f" steps {start} to {stop} from ")
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
        parser.parse_keyword("from")
        initial = parser.parse_operand()
        attributes = parser.parse_optional_attr_dict_with_keyword()
        op = cls(component.data, start, stop, initial, parser.parse_region())
        op.attributes.update(attributes.data if attributes else {})
        return op


@irdl_op_definition
class DecodeOp(_CallOp):
    """Turn the last latent into an image."""

    name = "diffusion.decode"
    OPERANDS: ClassVar[tuple[Attribute, ...]] = (LatentType(),)
    RESULT: ClassVar[Attribute] = ImageType()
    component = prop_def(SymbolRefAttr)
    latent = operand_def(LatentType)
    result = result_def(ImageType)
    traits = traits_def(Pure())

    def __init__(self, component: str, latent: SSAValue) -> None:
        super().__init__(
            operands=[latent], result_types=[ImageType()], properties={"component": SymbolRefAttr(component)}
        )
        self.result.name_hint = "image"


def denoise_loop(
    scheduler: str,
    denoiser: str,
    start: int,
    stop: int,
    initial: SSAValue,
    embeddings: Sequence[SSAValue],
    guidance: float | None,
) -> DenoiseOp:
    """Build a loop: guided from (unconditional, conditional) embeddings, or plain from one."""
    block = Block(arg_types=(LatentType(), TimestepType()))
    latent, timestep = block.args
    latent.name_hint, timestep.name_hint = "x", "t"
    hints = ("eu", "ec") if guidance is not None else ("e",)
    predicts = [
        PredictOp(denoiser, latent, timestep, embedding, hint)
        for embedding, hint in zip(embeddings, hints, strict=True)
    ]
    block.add_ops(predicts)
    prediction: SSAValue = predicts[-1].result
    if guidance is not None:
        guide = GuideOp(predicts[0].result, predicts[1].result, guidance)
        block.add_op(guide)
        prediction = guide.result
    step = StepOp(scheduler, latent, timestep, prediction)
    block.add_ops([step, YieldOp(step.result)])
    return DenoiseOp(scheduler, start, stop, initial, Region(block))
