"""`diffopt doctor`: arguments in, findings out. 0 nothing found, 1 findings left, 2 bad usage or input."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffopt.ir.errors import DiffoptError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help="a .py script, or a folder of them")
    parser.add_argument("--fix", action="store_true", help="fix what can be fixed, and show the rest")
    parser.add_argument("--diff", action="store_true", help="show what --fix would change; writes nothing")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    form.add_argument("--sarif", action="store_true", help="print a SARIF 2.1.0 log on standard output")
    parser.add_argument("--select", metavar="RULES", default="", help="only these: DIFF001,DIFF008 or their names")
    parser.add_argument("--ignore", metavar="RULES", default="", help="all but these")
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
    from diffopt.doctor.output import dumped, text_lines, to_json, to_sarif
    from diffopt.doctor.page import section, summary_of
    from diffopt.doctor.rule import Rule
    from diffopt.doctor.runner import Finding, fixed, lint, read, rules, write

    def chosen(text: str) -> list[type[Rule]]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        found = {name: rule for rule in rules() for name in (rule.id, rule.__name__)}
        if unknown := [name for name in names if name not in found]:
            raise DiffoptError(f"no rule {unknown[0]!r}", hint="diffopt doctor --rules lists them")
        return [found[name] for name in names]

    if options.rules:
        for rule in rules():
            fix = "fix" if rule.AUTOFIX else "   "
            sys.stdout.write(f"{rule.id}  {rule.severity:7}  {fix}  {rule.__name__:26}  {summary_of(rule)}\n")
        return 0
    if options.explain:
        sys.stdout.write(section(chosen(options.explain)[0]))
        return 0
    if not options.scripts:
        raise DiffoptError("no script given", hint="diffopt doctor SCRIPT...")
    left_out = chosen(options.ignore)
    active = [rule for rule in (chosen(options.select) or rules()) if rule not in left_out]
    files = list(scripts(options.scripts))
    findings: list[Finding] = []
    mended: list[str] = []
    texts = [(file, read(file)) for file in files]
    for file, text in texts:
        if options.fix or options.diff:
            after = fixed(text, file, active)
            if after != text:
                mended.append(file)
            if options.diff:
                sys.stdout.writelines(difference(text, after, file))
                continue
            if after != text:
                write(Path(file), after)
            text = after
        findings += lint(text, file, active)
    if options.diff:
        return 1 if mended else 0
    if options.json:
        sys.stdout.write(dumped(to_json(findings, files, mended)))
    elif options.sarif:
        sys.stdout.write(dumped(to_sarif(findings, active)))
    else:
        sys.stdout.writelines(f"{line}\n" for line in text_lines(findings, len(files), len(mended)))
    return 1 if findings else 0


def scripts(paths: Sequence[str]) -> Iterator[str]:
    """Yield the scripts that are named, and those in folders that are named; hidden folders are left alone."""
    for path in dict.fromkeys(paths):
        if not Path(path).is_dir():
            yield path
            continue
        inside = [file for file in sorted(Path(path).rglob("*.py")) if file.is_file()]
        inside = [f for f in inside if not any(p.startswith(".") for p in f.relative_to(path).parts)]
        if not inside:
            raise DiffoptError("no .py script in this folder", where=path)
        yield from map(str, inside)


def difference(before: str, after: str, path: str) -> list[str]:
    """Return a unified diff."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{path}", f"b/{path}", n=2
    )
    return [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines]
