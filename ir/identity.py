"""Text and identity of a module: print, parse, canonical text, hash, difference."""

from __future__ import annotations

import difflib
import hashlib

from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func
from xdsl.parser import Parser
from xdsl.utils.exceptions import ParseError, VerifyException

from diffopt.ir.dialect import Diffusion
from diffopt.ir.errors import DiffoptError

PROVENANCE = ("origin", "source", "spans")
"""Attributes that say where something came from; two modules that differ only there are one candidate."""


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
    try:
        module = Parser(context(), text, name).parse_module()
        module.verify()
    except ParseError as error:
        line = text.count("\n", 0, error.span.start) + 1
        raise DiffoptError(f"not IR text: {error.msg}", where=f"{name}:{line}") from None
    except (VerifyException, ValueError, RecursionError) as error:
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip(" ^-")), "it does not verify")
        raise DiffoptError(f"IR does not verify: {reason.strip()}", where=name) from None
    return module


def canonical_text(module: ModuleOp) -> str:
    """Print a module without provenance, names and hints: equal text means equal programs."""
    copy = module.clone()
    copy.properties.pop("sym_name", None)
    for op in copy.walk():
        for key in PROVENANCE:
            op.attributes.pop(key, None)
        op.attributes = dict(sorted(op.attributes.items()))
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
