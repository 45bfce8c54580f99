"""Functions and methods that are safe to compute when a script is only read: paths, conversions, simple text."""

from __future__ import annotations

import math
import operator
import os.path
from collections.abc import Callable
from pathlib import Path, PurePath

import libcst as cst

Apply = Callable[..., object]


def _same(value: object, *_: object, **__: object) -> object:
    return value


def _text(value: object) -> str:
    if not isinstance(value, str | int | float | PurePath):
        raise TypeError("only plain values are written out")
    return str(value)


def _fields(**values: object) -> dict[str, object]:
    return values


def _file_of_hub(repo_id: str, filename: str, **_: object) -> str:
    return f"{repo_id}/{filename}"


def _hub(repo_id: str, **_: object) -> str:
    return repo_id


FUNCTIONS: dict[str, Apply] = {
    "os.path.join": os.path.join,
    "os.path.dirname": os.path.dirname,
    "os.path.basename": os.path.basename,
    "os.path.abspath": os.path.abspath,
    "os.path.realpath": os.path.realpath,
    "os.path.normpath": os.path.normpath,
    "os.path.expanduser": os.path.expanduser,
    "os.fspath": os.fspath,
    "os.getcwd": os.getcwd,
    "pathlib.Path": Path,
    "pathlib.PurePath": Path,
    "pathlib.PosixPath": Path,
    "pathlib.Path.cwd": Path.cwd,
    "pathlib.Path.home": Path.home,
    "builtins.str": _text,
    "builtins.int": int,
    "builtins.float": float,
    "builtins.bool": bool,
    "builtins.abs": abs,
    "builtins.round": round,
    "builtins.min": min,
    "builtins.max": max,
    "builtins.len": len,
    "builtins.list": list,
    "builtins.tuple": tuple,
    "builtins.dict": dict,
    "types.SimpleNamespace": _fields,
    "types.MappingProxyType": _same,
    "torch.device": _text,
    "huggingface_hub.hf_hub_download": _file_of_hub,
    "huggingface_hub.snapshot_download": _hub,
    "math.sqrt": math.sqrt,
    "math.ceil": math.ceil,
    "math.floor": math.floor,
    "typing.cast": lambda kind, value: value,
}
"""What a dotted name computes."""

METHODS: dict[tuple[type, str], Apply] = {
    **{(str, name): getattr(str, name) for name in ("strip", "lstrip", "rstrip", "lower", "upper", "removesuffix")},
    **{(str, name): getattr(str, name) for name in ("removeprefix", "split", "join", "title")},
    **{(PurePath, name): getattr(Path, name) for name in ("resolve", "absolute", "expanduser", "joinpath", "as_posix")},
    **{(PurePath, name): getattr(Path, name) for name in ("with_name", "with_suffix", "__str__")},
    (dict, "get"): dict.get,
    (dict, "copy"): dict.copy,
}
"""What a method of a known value computes."""

PATH_ATTRIBUTES = ("parent", "parents", "name", "stem", "suffix")

BINARY: dict[type, Apply] = {
    cst.Add: operator.add,
    cst.Subtract: operator.sub,
    cst.Multiply: operator.mul,
    cst.Divide: operator.truediv,
    cst.FloorDivide: operator.floordiv,
    cst.Modulo: operator.mod,
    cst.BitOr: operator.or_,
}
UNARY: dict[type, Apply] = {
    cst.Minus: operator.neg,
    cst.Plus: operator.pos,
    cst.Not: operator.not_,
}
COMPARISONS: dict[type, Apply] = {
    cst.Equal: operator.eq,
    cst.NotEqual: operator.ne,
    cst.LessThan: operator.lt,
    cst.LessThanEqual: operator.le,
    cst.GreaterThan: operator.gt,
    cst.GreaterThanEqual: operator.ge,
    cst.Is: operator.is_,
    cst.IsNot: operator.is_not,
    cst.In: lambda one, many: one in many,
    cst.NotIn: lambda one, many: one not in many,
}
"""What an operator computes."""
