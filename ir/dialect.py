"""The `diffusion` dialect: a pipeline as components and one function that says what a call does.

Two kinds of thing stand in a module. *Structure* is operations with dataflow (encode, noise, denoise loops, predict,
guide, step, decode); *transforms* are an ordered list inside a component, each a runtime function of
`diffopt.backends` with its arguments, in order of application.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Self

from xdsl.dialects.builtin import (
    ArrayAttr,
    BoolAttr,
    BytesAttr,
    DictionaryAttr,
    Float64Type,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    ModuleOp,
    StringAttr,
    SymbolRefAttr,
    UnitAttr,
    f64,
    i64,
)
from xdsl.ir import Attribute, Block, Dialect, Operation, ParametrizedAttribute, Region, SSAValue, TypeAttribute
from xdsl.irdl import (
    IRDLOperation,
    irdl_attr_definition,
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
from xdsl.traits import IsTerminator, NoTerminator, Pure, SymbolOpInterface
from xdsl.utils.exceptions import VerifyException

from diffopt.ir.description import DENOISERS, JSON


@irdl_attr_definition
class TextType(ParametrizedAttribute, TypeAttribute):
    """A prompt."""

    name = "diffusion.text"


@irdl_attr_definition
class EmbeddingType(ParametrizedAttribute, TypeAttribute):
    """An encoded prompt: tokens × width."""

    name = "diffusion.embedding"


@irdl_attr_definition
class LatentType(ParametrizedAttribute, TypeAttribute):
    """A latent image: channels × height × width."""

    name = "diffusion.latent"


@irdl_attr_definition
class TimestepType(ParametrizedAttribute, TypeAttribute):
    """The point in time a denoiser is asked about."""

    name = "diffusion.timestep"


@irdl_attr_definition
class PredictionType(ParametrizedAttribute, TypeAttribute):
    """What a denoiser says of a latent: noise, velocity or sample."""

    name = "diffusion.prediction"


@irdl_attr_definition
class ImageType(ParametrizedAttribute, TypeAttribute):
    """A decoded image."""

    name = "diffusion.image"


def to_attribute(value: JSON) -> Attribute:
    """Write a JSON value as an attribute; `None` becomes `unit`."""
    if value is None:
        return UnitAttr()
    if isinstance(value, bool):
        return BoolAttr.from_bool(value)
    if isinstance(value, int):
        return IntegerAttr(value, i64)
    if isinstance(value, float):
        return FloatAttr(value, f64)
    if isinstance(value, str):
        # xDSL 0.74 reads a literal with bytes over 0x7f back as bytes, so such a string is bytes from the start.
        return StringAttr(value) if value.isascii() else BytesAttr(value.encode(errors="surrogatepass"))
    if isinstance(value, list | tuple):
        return ArrayAttr([to_attribute(v) for v in value])
    return DictionaryAttr({k: to_attribute(v) for k, v in value.items()})


def from_attribute(attribute: Attribute) -> JSON:
    """Read a JSON value back from an attribute.

    Raises:
        TypeError: the attribute is of a kind that `to_attribute` does not make.
    """
    match attribute:
        case UnitAttr():
            return None
        case IntegerAttr(type=IntegerType(width=width)) if width.data == 1:
            return bool(attribute.value.data)
        case IntegerAttr():
            return attribute.value.data
        case FloatAttr():
            return attribute.value.data
        case StringAttr():
            return attribute.data
        case BytesAttr():
            return attribute.data.decode(errors="surrogatepass")
        case ArrayAttr():
            return [from_attribute(v) for v in attribute.data]
        case DictionaryAttr():
            return {k: from_attribute(v) for k, v in attribute.data.items()}
    raise TypeError(f"no JSON for attribute {attribute}")


@irdl_op_definition
class ComponentOp(IRDLOperation):
    """A part of the pipeline (or, as `@pipeline`, the pipeline itself) and the transforms applied to it, in order."""

    name = "diffusion.component"
    sym_name = prop_def(StringAttr)
    class_name = prop_def(StringAttr)
    body = region_def("single_block")
    traits = traits_def(SymbolOpInterface(), NoTerminator())

    def __init__(self, sym_name: str, class_name: str, values: Mapping[str, JSON] | None = None) -> None:
        super().__init__(
            properties={"sym_name": StringAttr(sym_name), "class_name": StringAttr(class_name)},
            attributes={k: to_attribute(v) for k, v in (values or {}).items()},
            regions=[Region(Block())],
        )

    @property
    def values(self) -> dict[str, JSON]:
        """The attributes as JSON; a copy."""
        return {k: from_attribute(v) for k, v in self.attributes.items()}

    @property
    def config(self) -> dict[str, JSON]:
        """The component's `config.json`, without what is unset or private."""
        config = self.values.get("config")
        return config if isinstance(config, dict) else {}

    @property
    def transforms(self) -> tuple[TransformOp, ...]:
        """The transforms, first applied first."""
        return tuple(op for op in self.body.block.ops if isinstance(op, TransformOp))

    def set_value(self, key: str, value: JSON) -> None:
        """Set one attribute."""
        self.attributes[key] = to_attribute(value)

    def add_transform(self, transform: str, arguments: Mapping[str, JSON], origin: str) -> None:
        """Append a transform that the pass `origin` asks for."""
        self.body.block.add_op(TransformOp(transform, arguments, origin))

    def verify_(self) -> None:
        for op in self.body.block.ops:
            if not isinstance(op, TransformOp):
                raise VerifyException(f"a component holds only transforms, not {op.name}")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        printer.print_string(" = ")
        printer.print_attribute(self.class_name)
        printer.print_op_attributes(self.attributes, print_keyword=True)
        if self.body.block.first_op is not None:
            printer.print_string(" ")
            printer.print_region(self.body, print_entry_block_args=False)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        sym_name = parser.parse_symbol_name()
        parser.parse_punctuation("=")
        class_name = parser.parse_str_literal()
        attributes = parser.parse_optional_attr_dict_with_keyword()
        region = parser.parse_optional_region()
        op = cls(sym_name.data, class_name)
        if region is not None and region.blocks:
            op.detach_region(op.body)
            op.add_region(region)
        op.attributes.update(attributes.data if attributes else {})
        return op


@irdl_op_definition
class TransformOp(IRDLOperation):
    """A runtime function of `diffopt.backends.runtime` applied to the component it stands in."""

    name = "diffusion.transform"
    transform = prop_def(StringAttr)
    arguments_ = prop_def(DictionaryAttr, prop_name="arguments")

    def __init__(self, transform: str, arguments: Mapping[str, JSON], origin: str = "") -> None:
        super().__init__(
            properties={
                "transform": StringAttr(transform),
                "arguments": DictionaryAttr({k: to_attribute(v) for k, v in arguments.items()}),
            },
            attributes={"origin": StringAttr(origin)} if origin else {},
        )

    @property
    def arguments(self) -> dict[str, JSON]:
        """The arguments as JSON; a copy."""
        return {k: from_attribute(v) for k, v in self.arguments_.data.items()}

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_attribute(self.transform)
        if self.arguments_.data:
            printer.print_string(" ")
            printer.print_attribute(self.arguments_)
        printer.print_op_attributes(self.attributes, print_keyword=True)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        transform = parser.parse_str_literal()
        arguments = parser.parse_optional_dictionary_attr_dict()
        attributes = parser.parse_optional_attr_dict_with_keyword()
        op = cls(transform, {})
        op.properties["arguments"] = DictionaryAttr(arguments)
        op.attributes.update(attributes.data if attributes else {})
        return op


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


Diffusion = Dialect(
    "diffusion",
    [ComponentOp, TransformOp, EncodeOp, NoiseOp, PredictOp, GuideOp, StepOp, YieldOp, DenoiseOp, DecodeOp],
    [TextType, EmbeddingType, LatentType, TimestepType, PredictionType, ImageType],
)


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


def components(module: ModuleOp) -> dict[str, ComponentOp]:
    """Return the components by name, in the order they stand in."""
    return {op.sym_name.data: op for op in module.body.block.ops if isinstance(op, ComponentOp)}


def loops(module: ModuleOp) -> tuple[DenoiseOp, ...]:
    """Return the denoise loops in order."""
    return tuple(op for op in module.walk() if isinstance(op, DenoiseOp))


def operations(module: ModuleOp) -> Iterator[Operation]:
    """Walk every operation of the module."""
    return module.walk()


def denoiser_of(module: ModuleOp) -> ComponentOp:
    """Return the component that the loops ask for predictions.

    Raises:
        KeyError: the module has none; the verifier reports that first.
    """
    named = components(module)
    for loop in loops(module):
        for predict in loop.predicts:
            return named[predict.component.root_reference.data]
    return named[next(name for name in DENOISERS if name in named)]


def scheduler_of(module: ModuleOp) -> ComponentOp:
    """Return the scheduler component of the first loop."""
    return components(module)[loops(module)[0].component.root_reference.data]


def steps_of(module: ModuleOp) -> int:
    """Return the number of denoising steps."""
    return loops(module)[-1].bounds[1]
