from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.rewrite import CODE, RewriteOp, rewrites
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier

_HASH = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Rewrite(DiffusionPass):
    """Put the emitted code through a program that a language model wrote.

    What it does: records the hash of a text-to-text program in the module; emission runs that program, in a sandbox, on
        the `pipeline.py` it has written, and what comes out is what is measured and shipped.
    When it helps: where no pass of the catalogue says what is to be done.
    Refuses when: no code is named, or the same code stands there already.
    What it costs: unknown, so the weakest promise; measuring decides. The code must be in the run's folder or promoted.
    References: `docs/llm.md`.
    """

    name = "rewrite"
    family = Family.STRUCTURE
    tier = Tier.TRADED
    on_request = True
    examples = (
        Example(f'rewrite{{code="{_HASH}"}}', f'diffusion.rewrite "{_HASH}"'),
        Example("rewrite", refusal="no code is named"),
    )

    code: str = ""
    """`sha256:` and the hash of the program's text."""

    def check_options(self) -> None:
        self.require(
            not self.code or CODE.fullmatch(self.code) is not None, "code", "sha256: and 64 hexadecimal digits"
        )

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield from ()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        if not self.code:
            return Refusal("no code is named for the rewrite", rule="range")
        if self.code in rewrites(module):
            return Refusal(f"the code {self.code[:15]} rewrites it already", rule="once")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        op.body.block.add_op(RewriteOp(self.code, self.name))
