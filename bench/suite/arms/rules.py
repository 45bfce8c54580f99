"""The arm `rules`: from the structured specification alone, by diffopt's own passes and edits; no language model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.suite.attributes import PATH
from diffopt.bench.suite.families import FAMILIES
from diffopt.bench.suite.task import Task
from diffopt.bench.suite.writing import plain_script
from diffopt.ir.description import build_module
from diffopt.ir.emit_edits import apply_edits, emit_edits
from diffopt.ir.errors import DiffoptError
from diffopt.ir.source_script import describe_text
from diffopt.passes.pipeline import Trace, run
from diffopt.passes.refusal import Refusal

SOLVERS = {"ddim": "ddim", "dpm-solver": "dpmsolver++", "unipc": "unipc"}
AIMED = "reduce-steps{steps=10 solver=dpmsolver++}"
"""What is tried where a speed is asked for: the arm measures nothing before it answers."""


@dataclass(frozen=True)
class Answer:
    """What an arm hands in for a task: a script and how it came about, or why there is none."""

    code: str = ""
    trace: str = ""
    refused: str = ""


def answer(task: Task) -> Answer:
    """Answer a task from its specification."""
    trace = trace_for(task)
    half = task.method("half") if task.level < 4 else None
    return _answer(task.family, task.sampler, task.steps, str(half.options["dtype"]) if half else "float32", trace)


def baseline(task: Task) -> str:
    """Return the script that an answer is compared with: the task's pipeline without its methods."""
    return plain_script(task.about, sampler=task.sampler, steps=task.steps)


def trace_for(task: Task) -> str:
    """Return the passes that a specification comes to, in an order that works."""
    if task.level > 3:
        return AIMED
    steps = int(task.expected()["steps"])
    passes = []
    for method in task.methods:
        options = method.options
        match method.name:
            case "fast-sampler":
                passes.append(f"reduce-steps{{steps={steps} solver={SOLVERS[str(options['sampler'])]}}}")
            case "deepcache":
                passes.append(f"cache-features{{interval={options['interval']}}}")
            case "tome":
                passes.append(f"merge-tokens{{ratio={options['ratio']}}}")
            case "tgate":
                gate = int(options["gate_step"]) / steps
                freeze = "freeze" if task.method("deepcache") else "gate"
                passes.append(f"guidance-window{{stop={gate:.6f}}},{freeze}-cross-attention{{gate={gate:.6f}}}")
    return ",".join(passes)


@cache
def _answer(family: str, sampler: str, steps: int, dtype: str, trace: str) -> Answer:
    """Write the plain script, lift it, apply the passes, and edit the script as they say."""
    return patched(family, plain_script(FAMILIES[family], sampler=sampler, steps=steps, dtype=dtype), trace)


@cache
def lifted(family: str, script: str) -> ModuleOp:
    """Lift a script of a family; once, as passes leave the module that they are given alone.

    Raises:
        DiffoptError: it cannot be.
    """
    layout = FAMILIES[family].layout_directory()
    settings = {"model": str(layout)} if layout is not None else {}
    return build_module(describe_text(script, PATH, settings=settings))


def patched(family: str, script: str, trace: str) -> Answer:
    """Lift a script, apply the passes of a trace, and edit the script as they say."""
    try:
        result = run(Trace.parse(trace), lifted(family, script))
        if isinstance(result, Refusal):
            return Answer(trace=trace, refused=f"{result.where}: {result.reason}")
        return Answer(apply_edits(script, emit_edits(result, script, path=PATH)), trace)
    except DiffoptError as error:
        return Answer(trace=trace, refused=str(error))
