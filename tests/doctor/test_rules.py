"""Every rule keeps the promises of its class: examples, fixes, evidence."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from fixit import Invalid, Valid

from diffopt.doctor.page import dedented, summary_of
from diffopt.doctor.rule import Rule
from diffopt.doctor.runner import fixed, lint, rules

RULES = rules()
FOLDER = Path(__file__).resolve().parents[2] / "diffopt" / "doctor" / "rules"
each = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)


def code_of(example: str | Valid | Invalid) -> str:
    """Return an example's code."""
    return dedented(example if isinstance(example, str) else example.code)


def invalid(rule: type[Rule]) -> list[Invalid]:
    """Return what a rule must flag."""
    return [example if isinstance(example, Invalid) else Invalid(example) for example in rule.INVALID]


@each
def test_flags_what_it_says_it_flags_and_nothing_else(rule: type[Rule]) -> None:
    assert rule.VALID
    assert rule.INVALID
    for example in rule.VALID:
        assert lint(code_of(example), "valid.py", [rule]) == []
    for case in invalid(rule):
        found = lint(code_of(case), "invalid.py", [rule])
        assert found, case.code
        assert any(finding.fixable for finding in found) == bool(case.expected_replacement)


@each
def test_a_fix_is_what_the_example_expects_and_leaves_nothing_to_fix(rule: type[Rule]) -> None:
    for case in invalid(rule):
        if case.expected_replacement is None:
            continue
        after = fixed(code_of(case), "invalid.py", [rule])
        assert after == dedented(case.expected_replacement)
        assert fixed(after, "invalid.py", [rule]) == after
        assert lint(after, "invalid.py", [rule]) == []


@each
def test_all_rules_together_fix_an_example_once_and_for_all(rule: type[Rule]) -> None:
    for case in invalid(rule):
        after = fixed(code_of(case), "invalid.py")
        ast.parse(after)
        assert not any(finding.fixable for finding in lint(after, "invalid.py"))


@each
def test_the_examples_are_python(rule: type[Rule]) -> None:
    for example in (*rule.VALID, *rule.INVALID):
        compile(code_of(example), rule.id, "exec")
        if isinstance(example, Invalid) and example.expected_replacement:
            compile(dedented(example.expected_replacement), rule.id, "exec")


@each
def test_says_what_it_does_why_and_on_what_evidence(rule: type[Rule]) -> None:
    assert rule.severity in ("error", "warning", "note")
    assert summary_of(rule).startswith("Find ")
    assert summary_of(rule).endswith(".")
    assert len(rule.why) > 60
    assert rule.fix
    assert rule.evidence
    assert all(link.startswith("https://") for link in rule.evidence)


@each
def test_evidence_in_the_source_of_diffusers_is_there(rule: type[Rule]) -> None:
    from diffopt.doctor.installed import root_of

    root = root_of("diffusers")
    assert root is not None
    for link in rule.evidence:
        _, cut, file = link.partition("/src/diffusers/")
        assert not cut or (root / file).is_file(), link


def test_ids_count_from_1_and_names_are_those_of_the_files() -> None:
    assert [rule.id for rule in RULES] == [f"DIFF{number:03}" for number in range(1, len(RULES) + 1)]
    files = {file.stem: file for file in FOLDER.glob("*.py") if file.stem != "__init__"}
    assert {file.replace("_", "") for file in files} == {rule.__name__.lower() for rule in RULES}
    for rule in RULES:
        file = files[rule.__module__.rpartition(".")[2]]
        assert file.read_text(encoding="utf-8").startswith(f'"""{rule.id}: ')


def test_there_are_more_than_thirty() -> None:
    assert len(RULES) >= 30
