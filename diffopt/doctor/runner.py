"""Lint one script: findings out, or the fixed text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fixit.config import find_rules
from fixit.engine import LintRunner
from fixit.ftypes import Config, LintViolation, QualifiedRule

from diffopt.doctor.rule import Rule, Severity
from diffopt.ir.errors import DiffoptError
from diffopt.ir.script_text import parse_script

PACKAGE = "diffopt.doctor.rules"
ROUNDS = 10
"""How often a fixed script is linted again: a fix may make another one possible."""


@dataclass(frozen=True)
class Finding:
    """What a rule found, and where: lines count from 1, columns too."""

    rule: str
    name: str
    severity: Severity
    message: str
    path: str
    line: int
    column: int
    end_line: int
    end_column: int
    fixable: bool
    diff: str = ""


@cache
def rules() -> tuple[type[Rule], ...]:
    """Return all rules in the order of their ids; each file of the package is found, no list names them."""
    found = [found for found in find_rules(QualifiedRule(PACKAGE)) if issubclass(found, Rule)]
    return tuple(sorted(found, key=lambda r: r.id))


def lint(text: str, path: str, chosen: Sequence[type[Rule]] | None = None) -> list[Finding]:
    """Return what the rules find in a script, in the order of its lines.

    Raises:
        DiffoptError: the text is not Python, is too large, or is nested too deeply.
    """
    parse_script(text, path)
    found = [_finding(violation, path) for violation in _violations(text, path, chosen)[1]]
    return sorted(found, key=lambda f: (f.line, f.column, f.rule))


def fixed(text: str, path: str, chosen: Sequence[type[Rule]] | None = None) -> str:
    """Return a script with everything fixed that can be; linting it again finds nothing to fix.

    Raises:
        DiffoptError: the text is not Python, is too large, or is nested too deeply.
    """
    parse_script(text, path)
    for _ in range(ROUNDS):
        runner, violations = _violations(text, path, chosen)
        fixes = _apart([v for v in violations if v.replacement is not None])
        if not fixes:
            return text
        after = runner.apply_replacements(fixes).code
        try:
            parse_script(after, path)
        except DiffoptError as error:
            raise DiffoptError("a fix would break the script; nothing was written", where=path) from error
        text = after
    return text


def _violations(text: str, path: str, chosen: Sequence[type[Rule]] | None) -> tuple[LintRunner, list[LintViolation]]:
    runner = LintRunner(Path(path), text.encode("utf-8"))
    config = Config(path=Path(path), root=Path(path).parent)
    try:
        found = list(runner.collect_violations([rule() for rule in (rules() if chosen is None else chosen)], config))
    except RecursionError:
        raise DiffoptError("nested too deeply to be read", where=path) from None
    return runner, found


def _apart(violations: Sequence[LintViolation]) -> list[LintViolation]:
    """Return fixes none of which is inside of another, one for each node; the others get their turn next round."""
    found: dict[object, LintViolation] = {}
    for violation in violations:
        found.setdefault(violation.node, violation)
    return list(found.values())


def _finding(violation: LintViolation, path: str) -> Finding:
    rule = next(r for r in rules() if r.__name__ == violation.rule_name)
    start, end = violation.range.start, violation.range.end
    return Finding(
        rule=rule.id,
        name=rule.__name__,
        severity=rule.severity,
        message=violation.message.removeprefix(f"{rule.id} "),
        path=path,
        line=start.line,
        column=start.column + 1,
        end_line=end.line,
        end_column=end.column + 1,
        fixable=violation.replacement is not None,
        diff=violation.diff,
    )
