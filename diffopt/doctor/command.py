"""`diffopt doctor`: arguments in, findings out. 0 nothing found, 1 findings left, 2 bad usage or input."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from diffopt.doctor.files import read, relative, scripts, shown, write
from diffopt.ir.errors import DiffoptError

if TYPE_CHECKING:
    from diffopt.doctor.rule import Rule


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help="a .py script, or a folder of them")
    parser.add_argument("--fix", action="store_true", help="fix what can be fixed, and show the rest")
    parser.add_argument("--diff", action="store_true", help="show what --fix would change; writes nothing")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    form.add_argument("--sarif", action="store_true", help="print a SARIF 2.1.0 log on standard output")
    parser.add_argument("--select", metavar="RULES", help="only these: DIFF001,DIFF008 or their names")
    parser.add_argument("--ignore", metavar="RULES", help="all but these")
    parser.add_argument("--rules", action="store_true", help="list the rules")
    parser.add_argument("--explain", metavar="RULE", help="say what a rule does, and why")


def run(options: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        DiffoptError: a script cannot be read, or a rule is not known.
    """
    try:
        import fixit  # noqa: F401
    except ImportError:
        raise DiffoptError("the doctor needs Fixit", hint="pip install 'fixit>=2.1'") from None
    from diffopt.doctor.page import section, summary_of
    from diffopt.doctor.runner import rules

    if options.rules:
        for rule in rules():
            fix = "fix" if rule.AUTOFIX else "   "
            sys.stdout.write(f"{rule.id}  {rule.severity:7}  {fix}  {rule.__name__:26}  {summary_of(rule)}\n")
        return 0
    if options.explain is not None:
        sys.stdout.write("\n".join(section(rule) for rule in _chosen(options.explain, "--explain")))
        return 0
    if not options.scripts:
        raise DiffoptError("no script given", hint="diffopt doctor SCRIPT...")
    if options.diff and options.sarif:
        raise DiffoptError("--diff and --sarif do not go together", hint="--diff --json holds both findings and diff")
    left_out = [] if options.ignore is None else _chosen(options.ignore, "--ignore")
    selected = rules() if options.select is None else _chosen(options.select, "--select")
    active = [rule for rule in selected if rule not in left_out]
    if not active:
        raise DiffoptError("--ignore leaves out every rule that is selected", hint="select another, or ignore fewer")
    return _report(options, active, list(scripts(options.scripts)))


def _chosen(text: str, option: str) -> list[type[Rule]]:
    from diffopt.doctor.runner import rules

    names = [name.strip() for name in text.split(",") if name.strip()]
    found = {name: rule for rule in rules() for name in (rule.id, rule.__name__)}
    if unknown := [name for name in names if name not in found]:
        raise DiffoptError(f"no rule {unknown[0]!r}", hint="diffopt doctor --rules lists them")
    if not names:
        raise DiffoptError(f"{option} names no rule", hint="diffopt doctor --rules lists them")
    return list(dict.fromkeys(found[name] for name in names))


def _report(options: argparse.Namespace, active: list[type[Rule]], files: list[str]) -> int:
    """Lint and fix file by file; one that cannot be read or written keeps no other from its turn."""
    from diffopt.doctor.output import dumped, text_lines, to_json, to_sarif
    from diffopt.doctor.runner import Finding, fixed, lint

    findings: list[Finding] = []
    mended: list[str] = []
    changes: list[str] = []
    failures: dict[str, str] = {}
    for file in files:
        found: list[Finding] = []
        try:
            text = read(file)
            found = lint(text, file, active)
            after = fixed(text, file, active) if options.fix or options.diff else text
            changes += difference(text, after, file)
            if after != text and not options.diff:
                left = lint(after, file, active)
                write(Path(file), text, after)
                found = left
                mended.append(file)
        except DiffoptError as error:
            where = error.where.replace(file, shown(file))
            failures[file] = shown(str(DiffoptError(error.message, where, error.hint)))
            sys.stderr.write(f"diffopt: {failures[file]}\n")
        findings += found
    if options.json:
        report = to_json(findings, files, mended, failures)
        sys.stdout.write(dumped({**report, "diff": "".join(changes)} if options.diff else report))
    elif options.sarif:
        sys.stdout.write(dumped(to_sarif(findings, active, failures)))
    elif options.diff:
        sys.stdout.writelines(changes)
    elif findings or len(failures) < len(files):
        sys.stdout.writelines(f"{line}\n" for line in text_lines(findings, len(files) - len(failures), len(mended)))
    if failures:
        return 2
    return 1 if (changes if options.diff and not options.json else findings) else 0


def difference(before: str, after: str, path: str) -> list[str]:
    """Return a unified diff that `patch -p1` takes."""
    name = relative(path)
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{name}", f"b/{name}", n=2
    )
    return [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines]
