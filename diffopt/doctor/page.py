"""The pages of the rules: `docs/doctor.md` and `diffopt doctor --explain`, made from the rules themselves."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Sequence

from fixit import Invalid

from diffopt.doctor.rule import Rule

HEAD = """\
# diffopt doctor

<!-- Generated from the rules in diffopt/doctor/rules: `python -m diffopt.doctor.page > docs/doctor.md` -->

`diffopt doctor SCRIPT...` reads scripts that use diffusers and says what is wrong, slow or about to break in them.
Nothing of a script is run or imported, and neither torch nor diffusers is: what the installed diffusers has and
deprecates is read off its source. The rules are rules of [Fixit](https://fixit.readthedocs.io), so that its editor
integration and its comments work.

    diffopt doctor script.py              findings, one a line
    diffopt doctor --fix script.py        fix what can be fixed, and show the rest
    diffopt doctor --diff script.py       show what --fix would change
    diffopt doctor --json script.py       one JSON object; --sarif for SARIF 2.1.0
    diffopt doctor --rules                all rules
    diffopt doctor --explain DIFF008      why, evidence, example

Exit code 0: nothing found (or everything fixed). 1: findings are left. 2: bad usage, or a script that cannot be read or
written; the others are still done.

An *error* raises, or spoils the image. A *warning* costs time or memory, or will stop to work. A *note* is a better way.

`--fix` takes a file as it is on disk when its turn comes, and refuses it, untouched, if it is read-only or was saved
meanwhile. In a folder, hidden folders and links that lead out of it are left alone.

A finding is suppressed by a comment, by the rule's name or id, or by no name for all rules:
`# lint-ignore: OffloadAfterCuda`, `# lint-fixme: DIFF008`, `# lint-ignore`. The comment stands above the statement or
behind it, in the opening line of a call that goes over several lines, in the argument's own line, or directly above
that. `--select` and `--ignore` choose rules.

In a project of your own, as Fixit rules (`fixit lint`, `fixit fix`, its language server), in `pyproject.toml`:

    [tool.fixit]
    enable = ["diffopt.doctor.rules"]

As a pre-commit hook, in the environment of your project, where diffopt is installed beside your diffusers:

    - repo: <address of this repository>
      rev: v0.1.0
      hooks:
        - id: diffopt-doctor-system

*The installed diffusers* is the one beside the `diffopt` that runs. `diffopt-doctor-system` (`language: system`) runs the
`diffopt` on your path, so that it is your project's own. `diffopt-doctor`, and `diffopt-doctor-check`, which fixes
nothing, run in an environment that pre-commit makes for them, with the newest diffusers that diffopt allows; pin yours
there with `additional_dependencies: [diffusers==...]`, not older than diffopt itself asks for.

A new rule is one file in `diffopt/doctor/rules`, with its examples; this page, the list and its tests come from it.
"""


def page(rules: Sequence[type[Rule]]) -> str:
    """Return `docs/doctor.md`."""
    table = ["| rule | severity | fix | what it does |", "| --- | --- | --- | --- |"]
    for rule in rules:
        anchor = f"{rule.id} {rule.__name__}".lower().replace(" ", "-")
        fixes = "yes" if rule.AUTOFIX else ""
        table.append(f"| [{rule.id}](#{anchor}) {rule.__name__} | {rule.severity} | {fixes} | {summary_of(rule)} |")
    return "\n".join([HEAD, *table, "", *(section(rule) for rule in rules)])


def section(rule: type[Rule]) -> str:
    """Return the page of one rule, in Markdown."""
    links = "\n".join(f"- {link}" for link in rule.evidence)
    fixes = (
        "The fix is made by `--fix`." if rule.AUTOFIX else "This is for a person to decide; `--fix` leaves it alone."
    )
    parts = [
        f"## {rule.id} {rule.__name__}",
        f"Severity: {rule.severity}.",
        "### What it does",
        summary_of(rule),
        "### Why",
        rule.why,
        "### Evidence",
        links,
        "### Fix",
        f"{rule.fix} {fixes}",
        "### Example",
        example_of(rule),
    ]
    return "\n\n".join(parts) + "\n"


def summary_of(rule: type[Rule]) -> str:
    """Return what a rule does, in one sentence."""
    return " ".join((inspect.getdoc(rule) or "").split())


def example_of(rule: type[Rule]) -> str:
    """Return a rule's first example in Markdown: what it flags, and what the fix makes of it."""
    first = rule.INVALID[0]
    code, fixed = (first.code, first.expected_replacement) if isinstance(first, Invalid) else (first, None)
    text = f"```python\n{dedented(code)}```"
    return f"{text}\n\nbecomes\n\n```python\n{dedented(fixed)}```" if fixed else text


def dedented(code: str) -> str:
    """Return the code of an example as Fixit reads it: without its first line end and its indentation."""
    return textwrap.dedent(code.removeprefix("\n")).rstrip(" ")


if __name__ == "__main__":
    import sys

    from diffopt.doctor.runner import rules

    sys.stdout.write(page(rules()))
