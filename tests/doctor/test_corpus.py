"""What the rules find in the corpus of scripts and in diffusers' own examples: every finding judged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffopt.doctor.runner import lint, rules
from diffopt.ir.errors import DiffoptError

JUDGED = Path(__file__).parent / "corpus_findings.json"
CORPUS = Path(__file__).resolve().parents[1] / "ir" / "corpus"


def _sources() -> Iterator[tuple[str, str]]:
    """Yield (name, code) of each script of the corpus and each example of the installed diffusers."""
    from diffopt.ir.pipeline_examples import example_docs

    for file in sorted((*CORPUS.rglob("*.py"), *CORPUS.rglob("*.py.txt"))):
        yield f"corpus/{file.relative_to(CORPUS).as_posix()}", file.read_text(encoding="utf-8")
    for name, file_name, line, code in example_docs():
        yield f"{file_name}:{line} {name}", code


def _found() -> dict[str, list[str]]:
    """Return the findings of each source, by rule and line; refused sources say why."""
    found: dict[str, list[str]] = {}
    for name, code in _sources():
        try:
            findings = [f"{f.rule} {f.line}" for f in lint(code, name)]
        except DiffoptError as error:
            findings = [f"refused: {error}"]
        if findings:
            found[name] = findings
    return found


@pytest.mark.slow
def test_every_finding_was_judged(request: pytest.FixtureRequest) -> None:
    """With `--update-golden`, writes the findings; a person then writes the verdict of each rule that is new."""
    found = _found()
    ids = sorted({text.split()[0] for texts in found.values() for text in texts} & {rule.id for rule in rules()})
    if request.config.getoption("--update-golden"):
        old = json.loads(JUDGED.read_text(encoding="utf-8")) if JUDGED.is_file() else {"verdicts": {}}
        verdicts = {rule: old["verdicts"].get(rule, "") for rule in ids}
        text = json.dumps({"verdicts": verdicts, "findings": found}, indent=1, ensure_ascii=False)
        JUDGED.write_text(text + "\n", encoding="utf-8")
    judged = json.loads(JUDGED.read_text(encoding="utf-8"))
    assert found == judged["findings"], "a finding is new, or gone: judge it, then pytest --update-golden"
    assert sorted(judged["verdicts"]) == ids
    assert all(judged["verdicts"].values()), "a rule without a verdict"
