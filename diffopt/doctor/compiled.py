"""Where a script compiles parts of a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from diffopt.doctor.facts import Facts
from diffopt.ir.script_pipelines import Site

METHODS = ("compile", "compile_repeated_blocks")


@dataclass(frozen=True, eq=False)
class Compilation:
    """A part of a pipeline that is compiled, and the call that does it.

    Args:
        path: of the part, `unet` or `vae`, `decode`.
        regional: only the repeated blocks, which leaves what is between them as it was.
    """

    site: Site
    path: tuple[str, ...]
    node: cst.Call
    regional: bool


def compilations(facts: Facts) -> Iterator[Compilation]:
    """Yield the compilations of a script: `pipe.unet = torch.compile(pipe.unet)` and `pipe.unet.compile()`."""
    for change in facts.changes:
        value = change.value
        if isinstance(value, cst.Call) and is_compile(facts, value):
            yield Compilation(change.site, change.path, value, regional=False)
    for use in facts.uses:
        if use.path[-1] in METHODS and len(use.path) > 1:
            yield Compilation(use.site, use.path[:-1], use.call, regional=use.path[-1] != "compile")


def is_compile(facts: Facts, call: cst.Call) -> bool:
    """Say whether a call is `torch.compile(...)`."""
    return facts.called(call) == "torch.compile"
