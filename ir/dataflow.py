"""What a call computes: encode, noise, predict, guide, step, decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from xdsl.dialects.builtin import (
    ArrayAttr,
    Float64Type,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    SymbolRefAttr,
    UnitAttr,
    f64,
    i64,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AnyOf,
    BaseAttr,
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.parser import Parser, UnresolvedOperand
from xdsl.printer import Printer
from xdsl.traits import Pure

from diffopt.ir.attributes import (
    AudioType,
    DataType,
    EmbeddingType,
    ImageType,
    LatentType,
    MaskType,
    PredictionType,
    ResidualsType,
    TextType,
    TimestepType,
    VideoType,
)
from diffopt.ir.reuse import Reuse, integers, values_of

GIVEN: tuple[type[Attribute], ...] = (ImageType, VideoType, AudioType, MaskType, DataType)
"""Types of what a call is given or gives back, beside text."""

REUSED = ("difference", "prediction")
"""What of the unconditional prediction a step may reuse."""


def any_of(*kinds: type[Attribute]) -> AnyOf[Attribute]:
    """Return a constraint that holds for values of any of these kinds."""
    return AnyOf(tuple(BaseAttr(kind) for kind in kinds))


class CallOp(IRDLOperation):
    """Shared text form of `%r = diffusion.op @component(%a, %b)`: result and operand types follow from the op.

    An operand whose type may vary stands as `None` in `OPERANDS`; with `MORE`, any number of such may follow. A result
    that is not of the op's own type is said: `: !diffusion.video`.
    """

    OPERANDS: ClassVar[tuple[Attribute | None, ...]]
    RESULT: ClassVar[Attribute]
    MORE: ClassVar[bool] = False

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
        if self.results[0].type != self.RESULT:
            printer.print_string(" : ")
            printer.print_attribute(self.results[0].type)
        printer.print_op_attributes(self.attributes, print_keyword=True)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        symbol = parser.parse_optional_symbol_name()
        position = parser.pos
        given = parser.parse_comma_separated_list(parser.Delimiter.PAREN, parser.parse_unresolved_operand)
        types = [*cls.OPERANDS, *[None] * (len(given) - len(cls.OPERANDS) if cls.MORE else 0)]
        if len(given) != len(types):
            parser.raise_error(f"{cls.name} takes {len(cls.OPERANDS)} operands, not {len(given)}", position)
        operands = [
            parser.resolve_operand(operand, kind if kind is not None else _type_of(operand, parser))
            for operand, kind in zip(given, types, strict=True)
        ]
        properties: dict[str, Attribute] = {} if symbol is None else {"component": SymbolRefAttr(symbol)}
        op = cls.create(operands=operands, result_types=[cls.RESULT], properties=properties)
        op._parse_suffix(parser)
        if parser.parse_optional_punctuation(":"):
            op = cls.create(operands=operands, result_types=[parser.parse_type()], properties=op.properties)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        op.attributes.update(attributes.data if attributes else {})
        return op


def _type_of(operand: UnresolvedOperand, parser: Parser) -> Attribute:
    """Return the type that a value was defined with."""
    values = parser.ssa_values.get(operand.operand_name, ())
    if operand.index >= len(values):
        parser.raise_error(f"%{operand.operand_name} is used before it is defined", operand.span)
    return values[operand.index].type


@irdl_op_definition
class EncodeOp(CallOp):
    """Encode a prompt, or an image or sound that the call is given, into what conditions the denoiser."""

    name = "diffusion.encode"
    OPERANDS: ClassVar[tuple[Attribute | None, ...]] = (None,)
    RESULT: ClassVar[Attribute] = EmbeddingType()
    component = prop_def(SymbolRefAttr)
    text = operand_def(any_of(TextType, *GIVEN))
    result = result_def(EmbeddingType)
    traits = traits_def(Pure())

    def __init__(self, component: str, text: SSAValue, hint: str = "c") -> None:
        super().__init__(
            operands=[text], result_types=[EmbeddingType()], properties={"component": SymbolRefAttr(component)}
        )
        self.result.name_hint = hint


@irdl_op_definition
class NoiseOp(CallOp):
    """Draw the initial latent."""

    name = "diffusion.noise"
    OPERANDS: ClassVar[tuple[Attribute | None, ...]] = (i64,)
    RESULT: ClassVar[Attribute] = LatentType()
    seed = operand_def(i64)
    result = result_def(LatentType)
    traits = traits_def(Pure())

    def __init__(self, seed: SSAValue, medium: str = "image") -> None:
        super().__init__(operands=[seed], result_types=[LatentType(medium)])
        self.result.name_hint = "x0"


@irdl_op_definition
class PredictOp(CallOp):
    """Ask the denoiser about a latent, given embeddings, residuals, masks and latents as conditions.

    With `scale`, the guidance scale is an input of a guidance-distilled network (arXiv 2210.03142).
    With `full at [..]`, only those steps of the schedule run the whole network; the others reuse what the last full
    step computed: see `Reuse`.
    """

    name = "diffusion.predict"
    OPERANDS: ClassVar[tuple[Attribute | None, ...]] = (None, TimestepType())
    RESULT: ClassVar[Attribute] = PredictionType()
    MORE: ClassVar[bool] = True
    component = prop_def(SymbolRefAttr)
    scale = opt_prop_def(FloatAttr)
    full = opt_prop_def(ArrayAttr[IntegerAttr])
    branch = opt_prop_def(IntegerAttr)
    blocks = opt_prop_def(ArrayAttr[IntegerAttr])
    order = opt_prop_def(IntegerAttr)
    sample = operand_def(LatentType)
    timestep = operand_def(TimestepType)
    conditions = var_operand_def(any_of(EmbeddingType, LatentType, ResidualsType, *GIVEN))
    result = result_def(PredictionType)
    traits = traits_def(Pure())

    def __init__(
        self,
        component: str,
        sample: SSAValue,
        timestep: SSAValue,
        *conditions: SSAValue,
        hint: str = "e",
        scale: float | None = None,
    ) -> None:
        super().__init__(
            operands=[sample, timestep, list(conditions)],
            result_types=[PredictionType()],
            properties={"component": SymbolRefAttr(component)}
            | ({"scale": FloatAttr(scale, f64)} if scale is not None else {}),
        )
        self.result.name_hint = hint

    @property
    def embedding(self) -> SSAValue:
        """The first condition: what the first encoder made of the prompt."""
        return self.conditions[0]

    @property
    def full_steps(self) -> tuple[int, ...] | None:
        """Indices of the steps that run in full; `None` where all do."""
        return values_of(self.full)

    @property
    def reuse(self) -> Reuse | None:
        """What steps take over from full ones; `None` where all run in full."""
        return Reuse.from_properties(self.properties)

    def set_reuse(self, reuse: Reuse | None) -> None:
        """Mark the steps that run in full, and what the others take over."""
        for key in ("full", "branch", "blocks", "order"):
            self.properties.pop(key, None)
        self.properties.update(reuse.to_properties() if reuse is not None else {})

    def set_full_steps(self, steps: Sequence[int], branch: int) -> None:
        """Mark the steps of a UNet that run in full."""
        self.set_reuse(Reuse(tuple(steps), branch))

    def _print_suffix(self, printer: Printer) -> None:
        if self.scale is not None:
            printer.print_string(" scale ")
            printer.print_float(self.scale.value.data, Float64Type())
        if self.reuse is not None:
            printer.print_string(f" {self.reuse}")

    def _parse_suffix(self, parser: Parser) -> None:
        if parser.parse_optional_keyword("scale"):
            self.properties["scale"] = FloatAttr(float(parser.parse_number()), f64)
        if parser.parse_optional_keyword("full"):
            self.set_reuse(Reuse.parse(parser))


@irdl_op_definition
class GuideOp(IRDLOperation):
    """Classifier-free guidance: `uncond + scale · (cond - uncond)` (arXiv 2207.12598).

    The two predictions are one call of twice the batch, or, with `in_turn`, two calls; `apart`, they are two calls
    although the pipeline asks for both at once. With `fresh at [..]`, only those steps compute the unconditional
    prediction; the others reuse its last `difference` to the conditional one, or the `prediction` itself.
    """

    name = "diffusion.guide"
    in_turn = opt_prop_def(UnitAttr)
    apart = opt_prop_def(UnitAttr)
    fresh = opt_prop_def(ArrayAttr[IntegerAttr])
    reuse = opt_prop_def(StringAttr)
    scale = prop_def(FloatAttr)
    uncond = operand_def(PredictionType)
    cond = operand_def(PredictionType)
    result = result_def(PredictionType)
    traits = traits_def(Pure())

    def __init__(self, uncond: SSAValue, cond: SSAValue, scale: float, *, in_turn: bool = False) -> None:
        super().__init__(
            operands=[uncond, cond],
            result_types=[PredictionType()],
            properties={"scale": FloatAttr(scale, f64)} | ({"in_turn": UnitAttr()} if in_turn else {}),
        )
        self.result.name_hint = "e"

    @property
    def fresh_steps(self) -> tuple[int, ...] | None:
        """Indices of the steps that compute the unconditional prediction; `None` where all do."""
        return values_of(self.fresh)

    def set_fresh_steps(self, steps: Sequence[int], reuse: str) -> None:
        """Mark the steps that compute the unconditional prediction, and what of it the others reuse."""
        self.properties["fresh"] = integers(steps)
        self.properties["reuse"] = StringAttr(reuse)

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_list(self.operands, printer.print_ssa_value)
        printer.print_string(" by ")
        printer.print_float(self.scale.value.data, Float64Type())
        if self.in_turn is not None:
            printer.print_string(" in_turn")
        if self.apart is not None:
            printer.print_string(" apart")
        if self.fresh_steps is not None and self.reuse is not None:
            printer.print_string(f" fresh at {list(self.fresh_steps)} {self.reuse.data}")
        printer.print_op_attributes(self.attributes, print_keyword=True)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        uncond = parser.parse_operand()
        parser.parse_punctuation(",")
        cond = parser.parse_operand()
        parser.parse_keyword("by")
        scale = float(parser.parse_number())
        op = cls(uncond, cond, scale, in_turn=parser.parse_optional_keyword("in_turn") is not None)
        if parser.parse_optional_keyword("apart"):
            op.properties["apart"] = UnitAttr()
        if parser.parse_optional_keyword("fresh"):
            parser.parse_keyword("at")
            steps = parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer)
            what = next((word for word in REUSED if parser.parse_optional_keyword(word)), None)
            op.set_fresh_steps(steps, what or parser.raise_error(f"one of {', '.join(REUSED)} is reused"))
        attributes = parser.parse_optional_attr_dict_with_keyword()
        op.attributes.update(attributes.data if attributes else {})
        return op


@irdl_op_definition
class StepOp(CallOp):
    """Advance a latent by one step of the scheduler.

    With `weights [a, b, a1, b1, ..]`, by its constants: `a` times the latent plus `b` times the prediction, plus `a1` and
    `b1` times those of the step before, and so on.
    """

    name = "diffusion.step"
    OPERANDS: ClassVar[tuple[Attribute | None, ...]] = (None, TimestepType(), PredictionType())
    RESULT: ClassVar[Attribute] = LatentType()
    component = prop_def(SymbolRefAttr)
    weights = opt_prop_def(ArrayAttr[FloatAttr])
    sample = operand_def(LatentType)
    timestep = operand_def(TimestepType)
    prediction = operand_def(PredictionType)
    result = result_def(LatentType)
    traits = traits_def(Pure())

    def __init__(self, component: str, sample: SSAValue, timestep: SSAValue, prediction: SSAValue) -> None:
        super().__init__(
            operands=[sample, timestep, prediction],
            result_types=[sample.type],
            properties={"component": SymbolRefAttr(component)},
        )
        self.result.name_hint = "n"

    @property
    def constants(self) -> tuple[float, ...] | None:
        """The weights; `None` where the scheduler computes the step."""
        return None if self.weights is None else tuple(weight.value.data for weight in self.weights.data)

    def set_constants(self, weights: Sequence[float]) -> None:
        """Let the step be these weights."""
        self.properties["weights"] = ArrayAttr([FloatAttr(weight, f64) for weight in weights])

    def _print_suffix(self, printer: Printer) -> None:
        if self.constants is not None:
            printer.print_string(" weights [")
            printer.print_list(self.constants, lambda weight: printer.print_float(weight, Float64Type()))
            printer.print_string("]")

    def _parse_suffix(self, parser: Parser) -> None:
        if parser.parse_optional_keyword("weights"):
            self.set_constants(
                [
                    float(number)
                    for number in parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_number)
                ]
            )


@irdl_op_definition
class DecodeOp(CallOp):
    """Turn the last latent into an image, frames or sound."""

    name = "diffusion.decode"
    OPERANDS: ClassVar[tuple[Attribute | None, ...]] = (None,)
    RESULT: ClassVar[Attribute] = ImageType()
    component = prop_def(SymbolRefAttr)
    latent = operand_def(any_of(LatentType, *GIVEN))
    result = result_def(any_of(*GIVEN))
    traits = traits_def(Pure())

    def __init__(self, component: str, latent: SSAValue, result: Attribute | None = None) -> None:
        super().__init__(
            operands=[latent], result_types=[result or ImageType()], properties={"component": SymbolRefAttr(component)}
        )
        self.result.name_hint = "image"
