"""Components and their transforms: the operations without dataflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from xdsl.dialects.builtin import DictionaryAttr, StringAttr
from xdsl.ir import Attribute, Block, Region
from xdsl.irdl import IRDLOperation, irdl_op_definition, prop_def, region_def, traits_def
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import NoTerminator, SymbolOpInterface
from xdsl.utils.exceptions import VerifyException

from diffopt.ir.attributes import from_attribute, to_attribute
from diffopt.ir.description import JSON


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
        for attribute in self.attributes.values():
            _verify_json(attribute)

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
            properties={"transform": StringAttr(transform), "arguments": to_attribute({**arguments})},
            attributes={"origin": StringAttr(origin)} if origin else {},
        )

    @property
    def arguments(self) -> dict[str, JSON]:
        """The arguments as JSON; a copy."""
        arguments = from_attribute(self.arguments_)
        return arguments if isinstance(arguments, dict) else {}

    def verify_(self) -> None:
        _verify_json(self.arguments_)

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


def _verify_json(attribute: Attribute) -> None:
    try:
        from_attribute(attribute)
    except TypeError as error:
        raise VerifyException(str(error)) from None
    except UnicodeDecodeError:
        raise VerifyException(f"no text: {attribute}") from None
