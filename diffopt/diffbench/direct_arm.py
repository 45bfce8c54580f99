"""The arm `direct` of DiffBench: a language model writes each task's script from its words and the plain reference."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass

from diffopt.backends import runtime
from diffopt.bench.suite.arms.rules import Answer
from diffopt.bench.suite.attributes import READERS
from diffopt.bench.suite.static_gate import static_gate
from diffopt.bench.suite.task import Task
from diffopt.llm.answer import one_line
from diffopt.llm.client import Client
from diffopt.llm.debugger import Effort
from diffopt.llm.direct import Direct
from diffopt.llm.transcript import Transcript


@dataclass(frozen=True)
class TaskGate:
    """DiffBench's first gate, as one that scripts are mended by: it reads, and neither runs nor measures."""

    task: Task
    name: str = "static"

    def __call__(self, code: str) -> str:
        """See `llm.direct.Gate`."""
        return "; ".join(static_gate(self.task, code).reasons)


class DirectArm:
    """Answers tasks with scripts of a language model.

    A script is mended by the first gate alone: what the others find on held-out prompts never goes back to the model.
    """

    def __init__(self, client: Client, transcript: Transcript, effort: Effort | None = None) -> None:
        """Prepare it; `effort` is a task's: fixes, and scripts begun anew."""
        self._writer = Direct(client, transcript, effort=effort, prompts="task", functions=functions())

    def __call__(self, task: Task) -> Answer:
        """Return the script that passes, else the last one that was written, else why there is none."""
        asked = len(self._writer.problems)
        found = self._writer.write(task.prompt, task.reference, (TaskGate(task),))
        if found.attempts:
            return Answer((found.piece or found.attempts[-1].piece).code)
        problems = self._writer.problems[asked:]
        return Answer(refused=one_line(f"{problems[-1].status}: {problems[-1].message}" if problems else found.why))


def functions() -> str:
    """Return signature and docstring of each function of ours that the static gate reads a method off."""
    return "\n".join(
        f"   {name}{inspect.signature(function)}\n{textwrap.indent(inspect.getdoc(function) or '', '      ')}"
        for name in ("half_precision", "freeze_cross_attention", *sorted(READERS))
        if (function := getattr(runtime, name, None)) is not None
    )
