"""A rewrite of the emitted code, by a program kept elsewhere under its hash."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Self, TypeAlias

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.irdl import IRDLOperation, irdl_op_definition, prop_def
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from diffopt.ir.errors import DiffoptError

CODE = re.compile(r"sha256:[0-9a-f]{64}")

Rewriter: TypeAlias = Callable[[str, str], str]
"""Takes the name of a code (`sha256:…`) and a text, and returns the text that the code makes of it."""


class RewriteFailed(DiffoptError):
    """A generated program did not give a text that may be used: the fault of that program alone."""


@irdl_op_definition
class RewriteOp(IRDLOperation):
    """The emitted `pipeline.py`, text to text, goes through the code of this hash; several do in their order."""

    name = "diffusion.rewrite"
    code = prop_def(StringAttr)

    def __init__(self, code: str, origin: str = "") -> None:
        super().__init__(
            properties={"code": StringAttr(code)}, attributes={"origin": StringAttr(origin)} if origin else {}
        )

    def verify_(self) -> None:
        if not CODE.fullmatch(self.code.data):
            raise VerifyException(f"a code is named by its hash, sha256: and 64 digits, not {self.code.data!r}")

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_attribute(self.code)
        printer.print_op_attributes(self.attributes, print_keyword=True)

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        code = parser.parse_str_literal()
        attributes = parser.parse_optional_attr_dict_with_keyword()
        op = cls(code)
        op.attributes.update(attributes.data if attributes else {})
        return op


def rewrites(module: ModuleOp) -> tuple[str, ...]:
    """Return the codes that rewrite what is emitted, first applied first."""
    return tuple(op.code.data for op in module.body.block.ops if isinstance(op, RewriteOp))
