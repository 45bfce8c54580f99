"""The first gate: the attributes that a task asks for, in the code that answers it."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from diffopt.bench.suite.attributes import Read, read_attributes
from diffopt.bench.suite.task import Task
from diffopt.ir.errors import DiffoptError


@dataclass(frozen=True)
class Verdict:
    """What a gate says: passed, or the kind of error, in the paper's words, and the reasons."""

    passed: bool
    error: str = ""
    reasons: tuple[str, ...] = ()


def static_gate(task: Task, code: str) -> Verdict:
    """Compare what the code does with what the task asks for; code that means the same passes.

    Methods that the task does not name are a fault, and so are data types of parts, functions of the pipeline and running calls
    that are changed; other additions are not. Where methods are free, as in levels 4 and 5, these are too.
    """
    try:
        read = read_attributes(code, task.about)
    except DiffoptError as error:
        return Verdict(False, "compile", (str(error),))
    wanted = task.expected()
    reasons = [*read.problems, *read.changes, *_differences(wanted, read.attributes)]
    if task.level > 3:
        reasons = [*_readable(wanted, read), *_differences(wanted, read.attributes)]
    return Verdict(not reasons, "key attributes" if reasons else "", tuple(reasons))


def _readable(wanted: Mapping[str, Any], read: Read) -> list[str]:
    """Leave out what stays open of attributes that the task leaves free."""
    return [
        problem
        for problem in read.problems
        if not problem.startswith("`")
        or problem.split("`")[1] in wanted
        or not ("` cannot be known without running" in problem or "` is called" in problem)
    ]


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    reasons = []
    for name, value in wanted.items():
        if name == "methods":
            reasons += _method_differences(value, found[name])
        elif value is not None and found[name] != value:
            reasons.append(f"{name}: {found[name]!r}, asked for {value!r}")
    return reasons


def _method_differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    reasons = [f"{name} is not applied" for name in wanted if name not in found]
    reasons += [f"{name} is applied, which was not asked for" for name in found if name not in wanted]
    for name in wanted.keys() & found.keys():
        for option, value in wanted[name].items():
            if found[name].get(option) != value:
                reasons.append(f"{name}: {option} {found[name].get(option)}, asked for {value}")
    return sorted(reasons)


FREE = ("scheduler", "num_inference_steps", "dtype", "method")
"""What levels 4 and 5 leave to the answer."""


def strict_gate(truth: str, code: str, *, free: Collection[str] = ()) -> Verdict:
    """Judge as the paper does: every component of the reference solution, as it is written there, must be in the code.

    Names of classes, the model's name, numbers of the call and the functions that apply methods are compared as text; other
    code is tolerated, and code that means the same but is written otherwise fails.

    free: kinds of components that are not compared.
    """
    try:
        wanted, found = _written(truth), _written(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        return Verdict(False, "compile", (f"no Python: {error}",))
    missing = [f"{kind} {value!r} is not in the code" for kind, value in sorted(wanted - found) if kind not in free]
    return Verdict(not missing, "key attributes" if missing else "", tuple(missing))


CALLS = ("num_inference_steps", "height", "width")
APPLIED = ("follow_step_plan", "freeze_cross_attention", "merge_tokens", "half_precision", "Canny", "canny")


def _written(code: str) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("demo:"):
            found.add(("model", node.value))
        if isinstance(node, ast.keyword) and node.arg in CALLS:
            found.add((node.arg, ast.unparse(node.value)))
        if isinstance(node, ast.keyword) and node.arg in ("dtype", "torch_dtype"):
            found.add(("dtype", ast.unparse(node.value)))
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name.rpartition(".")[2] in APPLIED:
            found.add(("method", name.rpartition(".")[2]))
        owner, _, method = name.rpartition(".")
        if method in ("from_pretrained", "from_config"):
            found.add(("scheduler" if owner.endswith("Scheduler") else "class", owner))
    return found
