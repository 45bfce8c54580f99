"""What a rule is: a Fixit rule that asks the facts of a script and says what it found, with its evidence."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal

import libcst as cst
from fixit import Invalid, LintRule, Valid
from fixit.ftypes import LintIgnoreRegex
from libcst.metadata import ParentNodeProvider, PositionProvider

from diffopt.doctor.edits import without_statement
from diffopt.doctor.facts import Facts, FactsProvider

Severity = Literal["error", "warning", "note"]
"""An error raises or spoils the image; a warning costs time or memory, or will stop to work; a note is a better way."""

Replacement = cst.CSTNode | cst.FlattenSentinel[cst.CSTNode] | cst.RemovalSentinel

__all__ = ["Facts", "Invalid", "Replacement", "Rule", "Severity", "Valid", "docs", "issue", "source"]


def docs(page: str) -> str:
    """Return the address of a page of diffusers' documentation."""
    return f"https://huggingface.co/docs/diffusers/main/en/{page}"


def source(file: str) -> str:
    """Return the address of a file of diffusers."""
    return f"https://github.com/huggingface/diffusers/blob/main/src/diffusers/{file}"


def issue(number: int, repository: str = "huggingface/diffusers") -> str:
    """Return the address of an issue."""
    return f"https://github.com/{repository}/issues/{number}"


class Rule(LintRule):
    """A rule of the doctor; its docstring says what it does, in one imperative sentence.

    A rule asks `facts` once for a whole module and calls `flag`. It must be silent where it is not sure: a finding that
    a maintainer of diffusers would close as wrong is a bug.
    """

    METADATA_DEPENDENCIES = (PositionProvider, ParentNodeProvider, FactsProvider)

    id: ClassVar[str]
    severity: ClassVar[Severity]
    why: ClassVar[str]
    evidence: ClassVar[tuple[str, ...]]
    fix: ClassVar[str]

    def visit_Module(self, node: cst.Module) -> bool:
        self.check(self.get_metadata(FactsProvider, node))
        return False

    @abstractmethod
    def check(self, facts: Facts) -> None:
        """Flag what is wrong in a script."""

    def flag(
        self, node: cst.CSTNode, message: str, replacement: Replacement | None = None, at: cst.CSTNode | None = None
    ) -> None:
        """Report a finding.

        Args:
            node: what `replacement` takes the place of.
            at: what is shown as the place; `node` by default.
        """
        position = self.get_metadata(PositionProvider, at) if at is not None else None
        self.report(node, f"{self.id} {message}", position=position, replacement=replacement)

    def flag_call(self, facts: Facts, call: cst.Call, message: str, fix: bool = True) -> None:
        """Report a call that had better not be there; the fix takes it out where it is a statement of its own."""
        line = facts.statement(call)
        if fix and line is not None and facts.is_statement(call):
            self.flag(line, message, without_statement(line, facts.script.parents.get(line)), at=call)
        else:
            self.flag(call, message)

    def ignore_lint(self, node: cst.CSTNode) -> bool:
        """Say whether a comment suppresses this rule, by name (Fixit's way) or by id."""
        return super().ignore_lint(node) or any(self.id == name for name in _suppressed(self.node_comments(node)))


def _suppressed(comments: Iterator[str]) -> Iterator[str]:
    for comment in comments:
        if (match := LintIgnoreRegex.search(comment)) is not None and match[2] is not None:
            yield from re.split(r",\s*", match[2])
