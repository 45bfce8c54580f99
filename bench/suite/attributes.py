"""Read off the code of an answer what it does: by lifting it, never by running it."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from diffopt.bench.suite.changes import changes_of
from diffopt.bench.suite.families import Family
from diffopt.bench.suite.followable import calls_of, hidden, maybe_called
from diffopt.ir.description import PipelineDescription, Present
from diffopt.ir.errors import DiffoptError
from diffopt.ir.source_script import describe_text

PATH = Path("/diffbench/submission.py")
"""Where the text of an answer is said to stand: a folder that is not there, so that no file beside it is read."""

_MOST_STEPS = 100_000

SIXTEEN_BITS = ("float16", "bfloat16")


@dataclass(frozen=True)
class Read:
    """What was read: attributes by name, why any of them cannot be known, and what else of the pipeline is changed."""

    attributes: Mapping[str, Any]
    problems: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


@lru_cache(maxsize=1000)
def read_attributes(code: str, family: Family) -> Read:
    """Return the attributes of an answer's code; many tasks share an answer, and it is read once.

    Raises:
        DiffoptError: it is no Python, lacks `load` or `generate`, or builds no pipeline that can be made out.
    """
    problems = interface_problems(code)
    found = _described(code, family)
    tree = ast.parse(code)
    try:
        problems += hidden(tree) + maybe_called(tree, READERS.keys())
        calls, changes = calls_of(tree), changes_of(tree)
    except RecursionError:
        raise DiffoptError("too involved to be read", where=PATH.name) from None
    problems += [f"`{item.name}` cannot be known without running: {item.reason}" for item in found.unknowns]
    problems += _foreign_parts(found)
    methods, wrong = _methods(calls, found)
    scheduler = found.component("scheduler")
    changed = "scheduler" in found.spans and scheduler is not None
    attributes = {
        "pipeline_class": _last(found.pipeline_class),
        "model": found.model,
        "scheduler": _last(scheduler.class_name) if changed and scheduler is not None else family.own,
        "steps": found.steps,
        "guidance": found.guidance,
        "height": found.height,
        "width": found.width,
        "dtype": changes.dtype or _dtype(found),
        "methods": methods,
        "preprocessor": "canny" if _finds_edges(tree, calls) else "",
    }
    return Read(attributes, tuple(problems + wrong), tuple(changes.against(_dtype(found))))


def _finds_edges(tree: ast.Module, calls: str) -> bool:
    """Tell whether a Canny detector is called: OpenCV's, that of controlnet_aux, or diffopt's own."""
    if re.search(r"\b(cv2\s*\.\s*Canny|CannyDetector)\s*\(", calls):
        return True
    own = any(
        isinstance(node, ast.ImportFrom)
        and node.module == "diffopt.backends.canny"
        and any(part.name == "canny" and part.asname is None for part in node.names)
        for node in tree.body
    )
    return own and bool(re.search(r"(?<![\w.])canny\(", calls))


def interface_problems(code: str) -> list[str]:
    """Say what the script lacks of the form that answers have: `load(model, ...)` and `generate(pipe, prompt, generator)`.

    Raises:
        DiffoptError: it is no Python.
    """
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        raise DiffoptError(f"no Python: {error}", where=f"{PATH.name}:{line}" if line else PATH.name) from None
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    found = [f"there is no function `{name}`" for name in ("load", "generate") if name not in functions]
    if found:
        return found
    for name, needed in (("load", ("model",)), ("generate", ("pipe", "prompt", "generator"))):
        given = [argument.arg for argument in functions[name].args.args]
        used = {n.id for n in ast.walk(functions[name]) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        found += [f"`{name}` takes no `{argument}`" for argument in needed if argument not in given]
        found += [
            f"`{name}` ignores its `{argument}`" for argument in needed if argument in given and argument not in used
        ]
    return found


def _described(code: str, family: Family) -> PipelineDescription:
    found = describe_text(code, PATH)
    layout = family.layout_directory()
    if layout is None or found.model != family.model or all(u.name != "pipeline_class" for u in found.unknowns):
        return found
    # AutoPipeline and DiffusionPipeline take their class from the model's index.
    again = describe_text(code, PATH, settings={"model": str(layout)})
    return PipelineDescription(**{**vars(again), "model": found.model})


def _foreign_parts(found: PipelineDescription) -> list[str]:
    """Say which parts the script takes from elsewhere; a scheduler brings no weights, and a ControlNet has its own."""
    sources = {
        part.name: part.model or str(part.config.get("_name_or_path", ""))
        for part in found.components
        if part.name in found.spans and part.name not in ("scheduler", "controlnet")
    }
    parts = [f"its {name} comes from {source!r}" for name, source in sources.items() if source not in ("", found.model)]
    return parts + [f"it loads {adapter.kind} weights from {adapter.model!r}" for adapter in found.adapters]


def _dtype(found: PipelineDescription) -> str:
    for item in found.present:
        if _last(item.name) == "half_precision":
            return str(item.arguments.get("dtype", "bfloat16"))
    return found.dtype


def _methods(code: str, found: PipelineDescription) -> tuple[dict[str, dict[str, Any]], list[str]]:
    methods: dict[str, dict[str, Any]] = {}
    wrong: list[str] = []
    for item in found.present:
        read = READERS.get(_last(item.name))
        if read is None:
            continue
        if "when" in item.arguments:
            wrong.append(f"`{_last(item.name)}` is called only where {item.arguments['when']}")
        for name, options in read(item, code).items():
            if options is None:
                methods.pop(name, None)
            else:
                methods[name] = options
    return methods | _frozen(found), wrong


def _frozen(found: PipelineDescription) -> dict[str, dict[str, Any]]:
    """Read T-Gate beside a feature cache: cross-attentions frozen where guidance ends."""
    given = {_last(item.name): item.arguments for item in found.present}
    gate = given.get("freeze_cross_attention", {}).get("gate")
    if not isinstance(gate, float):
        return {}
    step, guided = round(gate * found.steps), steps_in(given.get("follow_step_plan", {}).get("guided"))
    return {"tgate": {"gate_step": step if guided == list(range(step)) else f"{step}, guided at {guided}"}}


Options = dict[str, dict[str, Any] | None]


def _step_plan(item: Present, code: str) -> Options:
    given = item.arguments
    full, guided = steps_in(given.get("full")), steps_in(given.get("guided"))
    if full is None:
        return {}
    if given.get("cross_attention"):
        gate = len(full)
        whole = full == list(range(gate)) and guided == full
        return {"tgate": {"gate_step": gate if whole else f"full at {full}, guided at {guided}"}}
    if given.get("blocks") is not None:
        return {}
    gaps = {after - before for before, after in itertools.pairwise(full)}
    return {"deepcache": {"interval": gaps.pop() if len(gaps) == 1 else f"full at {full}"}}


def _deepcache_package(item: Present, code: str) -> Options:
    interval = re.search(r"cache_interval\s*=\s*(\d+)", code)
    if not re.search(r"\.enable\(\)", code) or re.search(r"\.disable\(\)", code):
        return {}
    return {"deepcache": {"interval": int(interval.group(1)) if interval else 1}}


def _tgate_package(item: Present, code: str) -> Options:
    step = item.arguments.get("gate_step")
    return {"tgate": {"gate_step": step if isinstance(step, int) else "not a whole step"}}


def _tgate_deepcache(item: Present, code: str) -> Options:
    interval = item.arguments.get("cache_interval", 3)
    return {"deepcache": {"interval": interval}, **_tgate_package(item, code)}


READERS: Mapping[str, Callable[[Present, str], Options]] = {
    "follow_step_plan": _step_plan,
    "merge_tokens": lambda item, code: {"tome": {"ratio": item.arguments.get("ratio", 0.5)}},
    "apply_patch": lambda item, code: {"tome": {"ratio": item.arguments.get("ratio", 0.5)}},
    "remove_patch": lambda item, code: {"tome": None},
    "DeepCacheSDHelper": _deepcache_package,
    "TgateSDLoader": _tgate_package,
    "TgateSDXLLoader": _tgate_package,
    "TgatePixArtLoader": _tgate_package,
    "TgateSDDeepCacheLoader": _tgate_deepcache,
    "TgateSDXLDeepCacheLoader": _tgate_deepcache,
}
"""How each way to apply a method is read: diffopt's own functions, and the packages of the paper's world."""


def steps_in(value: object) -> list[int] | None:
    """Return the steps that an argument lists, `range(0, 49, 3)` or a list; None for neither, and for more than any run has."""
    match = re.fullmatch(r"range\(([\d, ]+)\)", str(value))
    try:
        listed = value if isinstance(value, list) else range(*map(int, match.group(1).split(","))) if match else None
        return None if listed is None or len(listed) > _MOST_STEPS else [int(step) for step in listed]
    except (TypeError, ValueError, OverflowError):
        return None


def _last(name: str) -> str:
    return name.rpartition(".")[2]
