"""What a call computes of images, masks and controls that it is given."""

from __future__ import annotations

from typing import ClassVar

from xdsl.dialects.builtin import IntegerAttr, StringAttr, SymbolRefAttr, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def, var_operand_def
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from diffopt.ir.attributes import EmbeddingType, LatentType, MaskType, ResidualsType, TimestepType
from diffopt.ir.dataflow import GIVEN, CallOp, any_of


@irdl_op_definition
class CompressOp(CallOp):
    """Encode an image, frames or sound into a latent."""

    name = "diffusion.compress"
    OPERANDS: ClassVar[tuple[Attribute | None, ...]] = (None,)
    RESULT: ClassVar[Attribute] = LatentType()
    component = prop_def(SymbolRefAttr)
    given = operand_def(any_of(*GIVEN))
    result = result_def(LatentType)
    traits = traits_def(Pure())

    def __init__(self, component: str, given: SSAValue, medium: str = "image") -> None:
        super().__init__(
            operands=[given], result_types=[LatentType(medium)], properties={"component": SymbolRefAttr(component)}
        )
        self.result.name_hint = "z"


@irdl_op_definition
class FoldedOp(CallOp):
    """What an encoder makes of a text that is known beforehand: a constant, computed when the pipeline is loaded."""

    name = "diffusion.folded"
    OPERANDS: ClassVar[tuple[Attribute | None, ...]] = ()
    RESULT: ClassVar[Attribute] = EmbeddingType()
    component = prop_def(SymbolRefAttr)
    text = prop_def(StringAttr)
    result = result_def(EmbeddingType)
    traits = traits_def(Pure())

    def __init__(self, component: str, text: str) -> None:
        super().__init__(
            result_types=[EmbeddingType()],
            properties={"component": SymbolRefAttr(component), "text": StringAttr(text)},
        )
        self.result.name_hint = "u"

    def _print_suffix(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_attribute(self.text)

    def _parse_suffix(self, parser: Parser) -> None:
        self.properties["text"] = StringAttr(parser.parse_str_literal())


@irdl_op_definition
class AddNoiseOp(CallOp):
    """Noise a latent as it would be at a step of the schedule, to start there (SDEdit, arXiv 2108.01073)."""

    name = "diffusion.add_noise"
    OPERANDS: ClassVar[tuple[Attribute | None, ...]] = (None, None)
    RESULT: ClassVar[Attribute] = LatentType()
    component = prop_def(SymbolRefAttr)
    step = prop_def(IntegerAttr)
    latent = operand_def(LatentType)
    noise = operand_def(LatentType)
    result = result_def(LatentType)
    traits = traits_def(Pure())

    def __init__(self, component: str, latent: SSAValue, noise: SSAValue, step: int) -> None:
        super().__init__(
            operands=[latent, noise],
            result_types=[latent.type],
            properties={"component": SymbolRefAttr(component), "step": IntegerAttr(step, i64)},
        )
        self.result.name_hint = "xs"

    def verify_(self) -> None:
        if self.step.value.data < 0:
            raise VerifyException(f"noise is added at a step of the schedule, not at {self.step.value.data}")

    def _print_suffix(self, printer: Printer) -> None:
        printer.print_string(f" at {self.step.value.data}")

    def _parse_suffix(self, parser: Parser) -> None:
        parser.parse_keyword("at")
        self.properties["step"] = IntegerAttr(parser.parse_integer(), i64)


@irdl_op_definition
class ControlOp(CallOp):
    """Ask a control net what to add to the denoiser's features (arXiv 2302.05543)."""

    name = "diffusion.control"
    OPERANDS: ClassVar[tuple[Attribute | None, ...]] = (None, TimestepType(), None)
    RESULT: ClassVar[Attribute] = ResidualsType()
    MORE: ClassVar[bool] = True
    component = prop_def(SymbolRefAttr)
    sample = operand_def(LatentType)
    timestep = operand_def(TimestepType)
    image = operand_def(any_of(*GIVEN, LatentType))
    conditions = var_operand_def(any_of(EmbeddingType, LatentType, *GIVEN))
    result = result_def(ResidualsType)
    traits = traits_def(Pure())

    def __init__(
        self, component: str, sample: SSAValue, timestep: SSAValue, image: SSAValue, *conditions: SSAValue
    ) -> None:
        super().__init__(
            operands=[sample, timestep, image, list(conditions)],
            result_types=[ResidualsType()],
            properties={"component": SymbolRefAttr(component)},
        )
        self.result.name_hint = "r"


@irdl_op_definition
class BlendOp(CallOp):
    """Keep what the mask leaves out: the known latent, noised to this step, outside of it."""

    name = "diffusion.blend"
    OPERANDS: ClassVar[tuple[Attribute | None, ...]] = (None, None, MaskType())
    RESULT: ClassVar[Attribute] = LatentType()
    latent = operand_def(LatentType)
    known = operand_def(LatentType)
    mask = operand_def(MaskType)
    result = result_def(LatentType)
    traits = traits_def(Pure())

    def __init__(self, latent: SSAValue, known: SSAValue, mask: SSAValue) -> None:
        super().__init__(operands=[latent, known, mask], result_types=[latent.type])
        self.result.name_hint = "b"
