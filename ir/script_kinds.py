"""Kinds of value that an expression of a script can have without running it."""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst


@dataclass(frozen=True)
class Known:
    """A value, and the expression in which it is written out."""

    value: object
    origin: cst.CSTNode


@dataclass(frozen=True)
class Missing:
    """No value without running the script, and why."""

    reason: str
    node: cst.CSTNode


Value = Known | Missing


@dataclass(frozen=True)
class Symbol:
    """Something imported or built in, by its dotted name."""

    name: str


@dataclass(frozen=True, eq=False)
class LocalClass:
    """A class of the script."""

    node: cst.ClassDef


@dataclass(frozen=True, eq=False)
class LocalFunction:
    """A function of the script."""

    node: cst.FunctionDef


@dataclass(frozen=True, eq=False)
class Instance:
    """An object of a class of the script; `call` made it, where that is known."""

    node: cst.ClassDef
    call: cst.Call | None = None


@dataclass(frozen=True)
class CommandLine:
    """What `parse_args()` returns."""
