"""The paper's direct mode: the model writes the whole accelerated script, and three gates judge it.

The script is a `pipeline.py` as `diffopt emit` writes one: `load(model, device, engines)` returns the pipeline. It is
never run here; the second and third gate have the runner do it, in its confinement.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Protocol

import libcst as cst
from libcst import matchers as m
from pydantic import BaseModel, Field, JsonValue

from diffopt.bench.outcome import Measured, Outcome
from diffopt.bench.tiers import TIERS
from diffopt.ir.errors import DiffoptError
from diffopt.llm.answer import one_line
from diffopt.llm.client import Client, Message, Problem, Question, Reply
from diffopt.llm.debugger import Effort, Mended, mend
from diffopt.llm.template import data_block, load, without_folder
from diffopt.llm.transcript import Transcript

LONGEST = 60_000
_ATTRIBUTE = re.compile(r"(?P<name>[A-Za-z_][\w.]*)(?:(?P<call>\(\))|\s*=\s*(?P<value>.+))?")


class Script(BaseModel):
    """A whole script, and why it is as it is."""

    reason: Annotated[str, Field(max_length=1000)] = ""
    code: Annotated[str, Field(min_length=1, max_length=LONGEST)]


class Gate(Protocol):
    """One judgement of a script. Gates stand in a row: a later one is not asked where an earlier one closes."""

    @property
    def name(self) -> str:
        """Its name in reports."""

    def __call__(self, code: str) -> str:
        """Return why the script does not pass, or ""."""


@dataclass(frozen=True)
class Attributes:
    """What a task asks to be in the script: exact names, values of keyword arguments, calls; more is tolerated."""

    names: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Attributes:
        """Read `NAME`, `CALL()` and `ARGUMENT=VALUE`.

        Raises:
            DiffoptError: a text is none of these.
        """
        names, calls, arguments = list[str](), list[str](), list[tuple[str, str]]()
        for text in texts:
            found = _ATTRIBUTE.fullmatch(text.strip())
            if found is None:
                hint = "write a name, a call as fuse_qkv_projections(), or an argument as interval=3"
                raise DiffoptError(f"{text!r} is nothing a script can be asked to hold", "--require", hint)
            if found["value"] is not None:
                arguments.append((found["name"], found["value"].strip()))
            elif found["call"]:
                calls.append(found["name"])
            else:
                names.append(found["name"])
        return cls(tuple(names), tuple(calls), tuple(arguments))


@dataclass(frozen=True)
class StaticGate:
    """Gate 1: the script parses, has `load`, and holds every attribute that the task names."""

    wanted: Attributes = Attributes()
    name: str = "static"

    def __call__(self, code: str) -> str:
        """See `Gate`."""
        try:
            return self._missing(code)
        except RecursionError:
            return "it is too deeply nested to be read"

    def _missing(self, code: str) -> str:
        try:
            tree = cst.parse_module(code)
            ast.parse(code)
        except (cst.ParserSyntaxError, SyntaxError, ValueError, MemoryError) as error:
            return f"it is not Python: {one_line(str(error))}"
        loads = [node for node in tree.body if isinstance(node, cst.FunctionDef) and node.name.value == "load"]
        if len(loads) != 1:
            return "it has no function load(model, device, engines)"
        names = {found.value for found in m.findall(tree, m.Name()) if isinstance(found, cst.Name)}
        calls = {tree.code_for_node(found.func) for found in m.findall(tree, m.Call()) if isinstance(found, cst.Call)}
        given = {
            (found.keyword.value, tree.code_for_node(found.value))
            for found in m.findall(tree, m.Arg(keyword=m.Name()))
            if isinstance(found, cst.Arg) and found.keyword is not None
        }
        missing = [*(name for name in self.wanted.names if name not in names)]
        missing += [f"{call}(...)" for call in self.wanted.calls if not any(_ends(each, call) for each in calls)]
        missing += [f"{name}={value}" for name, value in self.wanted.arguments if (name, value) not in given]
        return f"it lacks {', '.join(missing)}" if missing else ""


@dataclass(frozen=True)
class MeasuredGate:
    """Gates 2 and 3: the script runs, its images are good enough, and it is as much faster as is asked for.

    Args:
        measure: runs a script in the runner; the same script twice is measured once.
        tier: the weakest that will do; empty for any. min_psnr: least median paired PSNR in dB.
        min_accuracy: least prompt accuracy, where there is a scorer.
        min_speedup: least lower end of the interval of the speed-up; 0 asks for none.
        max_latency_s: most seconds a call, in the median; `None` asks for none.
    """

    name: str
    measure: Callable[[str], Outcome]
    tier: str = ""
    min_psnr: float = 0.0
    min_accuracy: float = 0.0
    min_speedup: float = 0.0
    max_latency_s: float | None = None

    def __call__(self, code: str) -> str:
        """See `Gate`."""
        outcome = self.measure(code)
        if not isinstance(outcome, Measured):
            return f"it does not run: {outcome.kind}: {one_line(outcome.message)}\n{outcome.log.strip()[-2000:]}"
        fidelity, latency = outcome.fidelity, outcome.latency
        if self.tier and TIERS.index(outcome.tier) > TIERS.index(self.tier):
            return f"images of tier {outcome.tier}, a median of {fidelity.psnr_median:.1f} dB; {self.tier} is asked for"
        if fidelity.psnr_median < self.min_psnr:
            return f"images at a median of {fidelity.psnr_median:.1f} dB, {self.min_psnr:g} are asked for"
        if fidelity.prompt_accuracy is not None and fidelity.prompt_accuracy < self.min_accuracy:
            return f"{fidelity.prompt_accuracy:.1%} of prompts right, {self.min_accuracy:.1%} are asked for"
        if latency.lo < self.min_speedup:
            return (
                f"a speed-up of {latency.ratio:.2f} [{latency.lo:.2f}, {latency.hi:.2f}], "
                f"{self.min_speedup:g} is asked for"
            )
        seconds = median(latency.candidate_s)
        if self.max_latency_s is not None and seconds > self.max_latency_s:
            return f"{seconds * 1e3:.4g} ms a call in the median, {self.max_latency_s * 1e3:g} are asked for"
        return ""


def gates(
    measure: Callable[[str], Outcome], wanted: Attributes = Attributes(), *, tier: str = "", min_psnr: float = 0.0,
    min_accuracy: float = 0.0, min_speedup: float = 0.0, max_latency_s: float | None = None,
) -> tuple[Gate, ...]:  # fmt: skip
    """Return the three gates of a task: static, absolute (it runs, with good images), relative (it is faster)."""
    known: dict[str, Outcome] = {}

    def once(code: str) -> Outcome:
        if code not in known:
            known[code] = measure(code)
        return known[code]

    absolute = MeasuredGate("absolute", once, tier, min_psnr, min_accuracy)
    relative = MeasuredGate("relative", once, min_speedup=min_speedup, max_latency_s=max_latency_s)
    return StaticGate(wanted), absolute, relative


def judge(code: str, row: Sequence[Gate]) -> tuple[str, str]:
    """Return the first gate that closes and why, or two empty texts where all are open."""
    for gate in row:
        reason = gate(code)
        if reason:
            return gate.name, reason
    return "", ""


class Direct:
    """Asks for whole scripts and has them mended until they pass the gates or the effort is spent."""

    def __init__(
        self,
        client: Client,
        transcript: Transcript,
        *,
        effort: Effort | None = None,
        enough: Callable[[], bool] = lambda: False,
        prompts: str = "direct",
        **told: str,
    ) -> None:
        """Prepare it.

        Args:
            enough: asked before every question; true ends the work, as when no more may be measured.
            prompts: name of the template; `told` fills the places of its system section.
        """
        self.client, self.transcript, self.effort, self.enough = client, transcript, effort, enough
        self.template, self._told = load(prompts), told
        self.problems: list[Problem] = []  # questions that brought no script
        self._reply: Reply[Script] | None = None

    def write(self, task: str, reference: str, row: Sequence[Gate]) -> Mended[Script]:
        """Return a script that passes, or all attempts.

        Args:
            task: what is wanted, in words.
            reference: the script to start from; the folder of its model is left out, see `template.with_folder`.
        """
        template = self.template
        user = template.render("user", task=data_block(task), reference=data_block(without_folder(reference)))
        messages = (Message("system", template.render("system", **self._told)), Message("user", user))
        question = Question(messages, Script, _schema(), template=template.identity)

        def fix(problem: str) -> Script | None:
            assert self._reply is not None
            instruction = template.render("fix", problem=data_block(problem, limit=4000))
            return self._ask(self._reply.question.follow(self._reply, instruction))

        def check(script: Script) -> str:
            gate, reason = judge(script.code, row)
            return f"gate {gate}: {reason}" if gate else ""

        return mend(lambda: self._ask(question), lambda script, problem: fix(problem), check, self.effort)

    def _ask(self, question: Question[Script]) -> Script | None:
        if self.enough():
            return None
        self._reply = self.client.ask(question, self.transcript)
        if self._reply.value is None:
            self.problems.append(Problem(self._reply.status, one_line(self._reply.message), self._reply.call))
        return self._reply.value


def _ends(call: str, wanted: str) -> bool:
    """Tell whether a call's text is the wanted one, or a method of that name on anything."""
    return call == wanted or call.endswith(f".{wanted}")


def _schema() -> dict[str, JsonValue]:
    text: dict[str, JsonValue] = {"type": "string"}
    return {
        "type": "object", "properties": {"reason": text, "code": text}, "required": ["reason", "code"],
        "additionalProperties": False,
    }  # fmt: skip
