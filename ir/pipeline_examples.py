"""The code examples in the docstrings of diffusers' pipeline classes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from diffopt.ir.pipeline_sources import parsed, pipelines_root, relative

FENCE = re.compile(r"^\s*```\s*(\w*)\s*$")
PROMPT = re.compile(r"^(\s*)(?:>>>|\.\.\.)(?: |$)")
LANGUAGES = ("", "py", "python", "python3")


def example_docs() -> Iterator[tuple[str, str, int, str]]:
    """Yield class, file, line and code of every example, one for each fenced block, prompts taken off.

    The file is relative to diffusers; the line is that of the block's first line of code. What a block prints is left
    out, its lines kept empty.
    """
    root = pipelines_root()
    for file in sorted(root.rglob("*.py")) if root else ():
        if b"EXAMPLE" not in file.read_bytes():
            continue
        tree = parsed(file)
        owners = _owners(tree)
        first = next((n.name for n in tree.body if isinstance(n, ast.ClassDef) and n.name.endswith("Pipeline")), "")
        for node in tree.body:
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            if not (isinstance(node, ast.Assign) and isinstance(target, ast.Name) and "EXAMPLE" in target.id):
                continue
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                for offset, code in _blocks(node.value.value):
                    yield owners.get(target.id, first), relative(file), node.value.lineno + offset, code


def _owners(tree: ast.Module) -> dict[str, str]:
    """Return the class whose method takes each docstring; some are taken by none."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    found: dict[str, str] = {}
    for owner in classes:
        for method in owner.body:
            for decorator in getattr(method, "decorator_list", ()):
                if isinstance(decorator, ast.Call) and decorator.args and isinstance(decorator.args[0], ast.Name):
                    found.setdefault(decorator.args[0].id, owner.name)
    return found


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line offset, code) of the Python blocks of a docstring."""
    lines = text.split("\n")
    start: int | None = None
    for number, line in enumerate(lines):
        fence = FENCE.match(line)
        if fence is None:
            continue
        if start is None:
            start = number + 1 if fence[1] in LANGUAGES else -1
        else:
            if start > 0:
                yield start, _code(lines[start:number])
            start = None


def _code(lines: list[str]) -> str:
    """Take prompts and indentation off."""
    if not any(PROMPT.match(line) for line in lines):
        return _dedented(lines)
    strict = [line[m.end() :] if (m := PROMPT.match(line)) else "" for line in lines]
    if _parses("\n".join(strict)):
        return "\n".join(strict) + "\n"
    # Some examples forget the prompt before a line that goes on.
    margin = min((len(m[1]) for line in lines if (m := PROMPT.match(line))), default=0)
    loose = [line[m.end() :] if (m := PROMPT.match(line)) else line[margin:] for line in lines]
    return "\n".join(loose if _parses("\n".join(loose)) else strict) + "\n"


def _dedented(lines: list[str]) -> str:
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[margin:].rstrip() for line in lines) + "\n"


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True
