"""What a rule is: a Fixit rule that asks the facts of a script and says what it found, with its evidence."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
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

__all__ = ["Facts", "Invalid", "Replacement", "Rule", "Severity", "Valid", "docs", "issue", "source", "suppressed"]


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
        self._facts = self.get_metadata(FactsProvider, node)
        self.check(self._facts)
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
        place = at if at is not None else node
        position = self.get_metadata(PositionProvider, place)
        if any(self._is_named(names) for names in self._suppressions(place)):
            return
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
        comments = self.node_comments(node)
        return super().ignore_lint(node) or any(self._is_named(names) for names in map(suppressed, comments))

    def _is_named(self, names: Sequence[str] | None) -> bool:
        known = {self.id.lower(), type(self).__name__.lower()}
        return names == [] or any(name.lower() in known for name in names or ())

    def _suppressions(self, node: cst.CSTNode) -> Iterator[list[str] | None]:
        """Yield what comments inside of a statement suppress at a node.

        Fixit looks at the ends of statements and above them. Comments count as well in the first and last line of the
        node, directly above it, and in the first line of each expression around it.
        """
        comments = self._facts.comments
        position = self.get_metadata(PositionProvider, node)
        lines = {position.start.line, position.end.line}
        above = position.start.line - 1
        while above in comments and comments[above][0]:
            lines.add(above)
            above -= 1
        around = self.get_metadata(ParentNodeProvider, node, None)
        while isinstance(around, cst.BaseExpression | cst.Arg | cst.BaseElement | cst.BaseSmallStatement):
            lines.add(self.get_metadata(PositionProvider, around).start.line)
            around = self.get_metadata(ParentNodeProvider, around, None)
        for line in sorted(lines):
            if line in comments:
                yield suppressed(comments[line][1])


def suppressed(comment: str) -> list[str] | None:
    """Return the rules a comment suppresses; empty for all, `None` if it is no suppression."""
    match = LintIgnoreRegex.search(comment)
    if match is None:
        return None
    return re.split(r",\s*", match[2]) if match[2] is not None else []
