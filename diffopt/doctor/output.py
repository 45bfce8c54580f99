"""Findings as text, JSON and SARIF 2.1.0."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

import diffopt
from diffopt.doctor.files import shown
from diffopt.doctor.page import example_of, summary_of
from diffopt.doctor.rule import Rule
from diffopt.doctor.runner import Finding

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def text_lines(findings: Sequence[Finding], files: int, fixed: int) -> list[str]:
    """Return one line a finding, and a sum."""
    lines = [shown(f"{f.path}:{f.line}:{f.column}: {f.rule} {f.severity}: {f.message}{_mark(f)}") for f in findings]
    counts = Counter(f.severity for f in findings)
    parts = [_many(counts[name], name) for name in ("error", "warning", "note") if counts[name]]
    what = ", ".join(parts) if parts else "nothing found"
    lines.append(f"{what} in {_many(files, 'script')}" + (f"; {_many(fixed, 'script')} fixed" if fixed else ""))
    if fixable := sum(f.fixable for f in findings):
        lines.append(f"{fixable} can be fixed with --fix; diffopt doctor --explain {findings[0].rule} says why")
    return lines


def _mark(finding: Finding) -> str:
    return " [fixable]" if finding.fixable else ""


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def to_json(
    findings: Sequence[Finding], files: Sequence[str], fixed: Sequence[str], failures: Mapping[str, str]
) -> dict[str, Any]:
    """Return findings as one JSON object; `failures` says why a file was not read or written."""
    return {
        "version": 1,
        "files": list(files),
        "fixed": list(fixed),
        "errors": [{"path": path, "message": message} for path, message in failures.items()],
        "findings": [
            {
                "rule": f.rule,
                "name": f.name,
                "severity": f.severity,
                "message": f.message,
                "path": f.path,
                "line": f.line,
                "column": f.column,
                "end_line": f.end_line,
                "end_column": f.end_column,
                "fixable": f.fixable,
                "diff": f.diff,
            }
            for f in findings
        ],
    }


def to_sarif(findings: Sequence[Finding], rules: Sequence[type[Rule]], failures: Mapping[str, str]) -> dict[str, Any]:
    """Return findings as a SARIF 2.1.0 log, with all rules described."""
    index = {rule.id: number for number, rule in enumerate(rules)}
    driver = {
        "name": "diffopt doctor",
        "semanticVersion": diffopt.__version__,
        "rules": [_descriptor(rule) for rule in rules],
    }
    notes = [{"level": "error", "message": {"text": message}} for message in failures.values()]
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": not notes, "toolExecutionNotifications": notes}],
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, index[finding.rule]) for finding in findings],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _descriptor(rule: type[Rule]) -> dict[str, Any]:
    links = "\n".join(f"- {link}" for link in rule.evidence)
    return {
        "id": rule.id,
        "name": rule.__name__,
        "shortDescription": {"text": summary_of(rule)},
        "fullDescription": {"text": rule.why},
        "help": {"text": f"{rule.fix}\n\n{example_of(rule)}", "markdown": f"{rule.fix}\n\n{links}"},
        "helpUri": rule.evidence[0],
        "defaultConfiguration": {"level": rule.severity},
    }


def _result(finding: Finding, index: int) -> dict[str, Any]:
    region = {
        "startLine": finding.line,
        "startColumn": finding.column,
        "endLine": finding.end_line,
        "endColumn": finding.end_column,
    }
    place = {"artifactLocation": {"uri": quote(os.fsencode(PurePath(finding.path).as_posix()))}, "region": region}
    return {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": finding.severity,
        "message": {"text": finding.message},
        "locations": [{"physicalLocation": place}],
    }


def dumped(data: dict[str, Any]) -> str:
    """Return JSON text."""
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    # a file name that is not UTF-8 holds surrogates, which cannot be written but escaped
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)
