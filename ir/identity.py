"""Text and identity of a module: print, parse, canonical text, hash, difference."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator

from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, Builtin, DictionaryAttr, ModuleOp, StringAttr, SymbolRefAttr
from xdsl.dialects.func import Func
from xdsl.ir import Attribute, Operation
from xdsl.parser import Parser
from xdsl.utils.exceptions import ParseError, VerifyException

from diffopt.ir.attributes import in_order
from diffopt.ir.dialect import Diffusion
from diffopt.ir.errors import DiffoptError

PROVENANCE = ("assumptions", "origin", "source", "spans")
"""Attributes that say where something came from; two modules that differ only there are one candidate."""

TOKENS = re.compile(r"""//[^\n]*|"(?:[^"\\\n\v\f]|\\(?:["nt\\]|[0-9A-Fa-f]{2}))*"|"|\b[su]?i[0-9]{6,}""")
"""Comments, string literals, and what xDSL 0.74 does not survive."""

FATAL = {
    '"': "a string is not closed or has an unknown escape",  # takes time exponential in the rest of the line
    "i": "an integer type is too wide",  # takes memory for the largest number of that type
}


def context() -> Context:
    """Return a context that knows the dialects a module is written in."""
    ctx = Context()
    for dialect in (Builtin, Func, Diffusion):
        ctx.load_dialect(dialect)
    return ctx


def print_module(module: ModuleOp) -> str:
    """Print a module; `parse_module` reads it back."""
    return str(module) + "\n"


def parse_module(text: str, name: str = "<ir>") -> ModuleOp:
    """Read a module from its text and verify it.

    Raises:
        DiffoptError: the text does not parse or does not verify; says the line.
    """

    def where(position: int) -> str:
        return f"{name}:{text.count(chr(10), 0, position) + 1}"

    for match in TOKENS.finditer(text):
        token = match.group()
        if token == '"' or token[0] in "sui":
            raise DiffoptError(f"not IR text: {FATAL[token.lstrip('su')[0]]}", where(match.start()))
    try:
        parser = _PlaceKeeper(context(), text, name)
        module = parser.parse_module()
    except ParseError as error:
        raise DiffoptError(f"not IR text: {error.msg}", where(error.span.start)) from None
    except (VerifyException, ValueError, OverflowError, RecursionError) as error:
        raise DiffoptError(f"not IR text: {_reason(error)}", where(parser.pos)) from None
    for op in module.walk(reverse=True):
        try:
            op.verify(verify_nested_ops=False)
            _verify_spelling(op)
        except VerifyException as error:
            raise DiffoptError(f"IR does not verify: {_reason(error)}", where(parser.places[op])) from None
    try:
        module.verify()
    except VerifyException as error:
        raise DiffoptError(f"IR does not verify: {_reason(error)}", name) from None
    return module


def canonical_text(module: ModuleOp) -> str:
    """Print a module without provenance, names and hints: equal text means equal programs."""
    copy = module.clone()
    copy.properties.pop("sym_name", None)
    for op in copy.walk():
        for key in PROVENANCE:
            op.attributes.pop(key, None)
        op.attributes = {key: in_order(value) for key, value in sorted(op.attributes.items())}
        op.properties = {key: in_order(value) for key, value in sorted(op.properties.items())}
        for value in (*op.results, *(a for r in op.regions for b in r.blocks for a in b.args)):
            value.name_hint = None
    return print_module(copy)


def module_hash(module: ModuleOp) -> str:
    """Return the identity of a candidate: 16 hexadecimal digits of the canonical text's SHA-256."""
    return hashlib.sha256(canonical_text(module).encode()).hexdigest()[:16]


def difference(before: ModuleOp, after: ModuleOp) -> str:
    """Return a unified diff of two modules' texts."""
    old, new = print_module(before).splitlines(), print_module(after).splitlines()
    return "\n".join(difflib.unified_diff(old, new, "before", "after", lineterm="", n=1))


class _PlaceKeeper(Parser):
    """A parser that remembers where each operation begins."""

    def __init__(self, ctx: Context, text: str, name: str) -> None:
        super().__init__(ctx, text, name)
        self.places: dict[Operation, int] = {}

    def parse_operation(self) -> Operation:
        """Read one operation."""
        place = self.pos
        op = super().parse_operation()
        self.places[op] = place
        return op


def _reason(error: BaseException) -> str:
    """Return the sentence in an error of xDSL, which may show the IR before or after it."""
    lines = [line.strip(" ^-|") for line in str(error).splitlines()]
    return next((line for line in reversed(lines) if line), type(error).__name__)


def _verify_spelling(op: Operation) -> None:
    """Check that keys and names are ASCII: xDSL 0.74 reads others, but not after it printed them."""
    spelled = [*op.attributes, *(key for a in op.attributes.values() for key in _keys(a))]
    for attribute in op.properties.values():
        spelled += [*_keys(attribute), *_name(attribute)]
    for text in spelled:
        if not text.isascii():
            raise VerifyException(f"{text!r} in {op.name}: names and keys are ASCII")


def _keys(attribute: Attribute) -> Iterator[str]:
    match attribute:
        case ArrayAttr():
            for value in attribute.data:
                yield from _keys(value)
        case DictionaryAttr():
            for key, value in attribute.data.items():
                yield key
                yield from _keys(value)


def _name(attribute: Attribute) -> Iterator[str]:
    match attribute:
        case StringAttr():
            yield attribute.data
        case SymbolRefAttr():
            yield "".join(name.data for name in (attribute.root_reference, *attribute.nested_references.data))
