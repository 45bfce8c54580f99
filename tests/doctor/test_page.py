"""The page of the rules is made from the rules."""

from __future__ import annotations

from pathlib import Path

from diffopt.doctor.page import page
from diffopt.doctor.runner import rules


def test_the_page_is_up_to_date(repository: Path) -> None:
    written = (repository / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert written == page(rules()), "python -m diffopt.doctor.page > docs/doctor.md"


def test_each_rule_has_the_same_headings(repository: Path) -> None:
    text = (repository / "docs" / "doctor.md").read_text(encoding="utf-8")
    for heading in ("What it does", "Why", "Evidence", "Fix", "Example"):
        assert text.count(f"\n### {heading}\n") == len(rules())


def test_the_hooks_on_the_page_are_offered(repository: Path) -> None:
    hooks = (repository / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
    text = (repository / "docs" / "doctor.md").read_text(encoding="utf-8")
    for line in hooks.splitlines():
        if line.startswith("- id: "):
            assert f"`{line.removeprefix('- id: ')}`" in text
    assert "  language: system\n" in hooks
