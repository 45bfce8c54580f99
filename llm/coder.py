"""Have new passes written where plans stall: text-to-text programs, checked, confined, measured, and kept as candidates."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from diffopt.bench.outcome import Measured, Outcome
from diffopt.bench.tiers import TIERS
from diffopt.llm.answer import one_line
from diffopt.llm.client import Client, Message, Problem, Question, Reply
from diffopt.llm.debugger import Effort, Mended, mend
from diffopt.llm.feedback import Trial, history_text
from diffopt.llm.generated import GeneratedPass, pass_schema
from diffopt.llm.laws import check
from diffopt.llm.library import Entry, Library, Status, entry_of
from diffopt.llm.sandbox import Limits
from diffopt.llm.template import data_block, load, without_folder
from diffopt.llm.transcript import Transcript
from diffopt.passes.base import registry
from diffopt.passes.pipeline import Trace

_TRACEBACK = 2000

Measure = Callable[[Trace, str], Outcome | None]
"""Measures a trace for an origin; `None` where there is no budget left for it."""


@dataclass(frozen=True)
class Task:
    """What a pass is to be written for.

    Args:
        base: the passes before it, which lead to the file that it gets.
        target: that file.
        history: what was measured so far.
        base_tier: the tier of what they lead to: a pass is held to its own word, not to theirs.
        knowledge: rules and lessons, as text.
    """

    base: Trace
    target: str
    base_tier: str = "exact"
    history: Sequence[Trial] = ()
    knowledge: str = ""


class Coder:
    """Asks for one pass at a time and has it mended until it works or the effort is spent.

    Whatever comes of a pass is in the library, with its status, the reason and the level of the sandbox.
    """

    def __init__(
        self,
        client: Client,
        transcript: Transcript,
        library: Library,
        measure: Measure,
        *,
        goal: str,
        device: Mapping[str, object],
        limits: Limits | None = None,
        effort: Effort | None = None,
    ) -> None:
        self.client, self.transcript, self.library, self.measure = client, transcript, library, measure
        self.goal, self.device = goal, device
        self.limits, self.effort = limits, effort
        self.problems: list[Problem] = []  # questions that brought no pass
        self._reply: Reply[GeneratedPass] | None = None
        self._written: dict[str, str] = {}

    def write(self, task: Task) -> Mended[GeneratedPass]:
        """Return a pass that keeps the laws, ran, and kept its promise; or all attempts at one."""
        return mend(
            lambda: self._ask(self._question(task)),
            lambda written, problem: self._mended(problem),
            lambda written: self._check(written, task),
            self.effort,
        )

    def _question(self, task: Task) -> Question[GeneratedPass]:
        template = load("coder")
        # Of this session alone, in order: a resumed run must ask what it asked.
        written = "\n".join(f"- {name}: {said}" for name, said in self._written.items())
        user = template.render(
            "user",
            goal=one_line(self.goal, 1000),
            device=json.dumps(dict(self.device), indent=1, sort_keys=True, default=str),
            catalogue="\n".join(f"- {name}: {_summary(found.__doc__)}" for name, found in registry().items()),
            knowledge=data_block(task.knowledge or "nothing yet"),
            target=data_block(without_folder(task.target)),
            history=data_block(history_text(task.history)),
            written=data_block(written or "nothing yet"),
        )
        messages = (Message("system", template.render("system")), Message("user", user))
        return Question(messages, GeneratedPass, pass_schema(), template=template.identity)

    def _ask(self, question: Question[GeneratedPass]) -> GeneratedPass | None:
        self._reply = self.client.ask(question, self.transcript)
        if self._reply.value is None:
            self.problems.append(Problem(self._reply.status, one_line(self._reply.message), self._reply.call))
        return self._reply.value

    def _mended(self, problem: str) -> GeneratedPass | None:
        assert self._reply is not None
        instruction = load("coder").render("fix", problem=data_block(problem, limit=_TRACEBACK * 2))
        return self._ask(self._reply.question.follow(self._reply, instruction))

    def _check(self, written: GeneratedPass, task: Task) -> str:
        """Return what is wrong with a pass, and write down what became of it."""
        if written.name in registry():
            return self._note(written, "static", f"{written.name} is a pass of the catalogue already")
        verdict = check(written, [task.target], self.limits)
        if not verdict.ok:
            said = "\n".join(verdict.broken)
            self._note(written, cast(Status, verdict.stage), said, verdict.level, verdict.guards)
            return f"{said}\n{verdict.log[-_TRACEBACK:]}" if verdict.stage == "sandbox" else said
        self._note(written, "candidate", "not measured yet", verdict.level, verdict.guards)
        trace = Trace((*task.base.passes, *Trace.parse(written.trace).passes))
        outcome = self.measure(trace, f"coder:{written.name}")
        if outcome is None:
            return ""
        if not isinstance(outcome, Measured):
            why = f"{outcome.kind}: {one_line(outcome.message, 600)}"
            self._note(written, "failed", why, verdict.level, verdict.guards)
            return f"{why}\n{outcome.log.strip()[-_TRACEBACK:]}"
        found = {
            "trace": str(trace),
            "ratio": [outcome.latency.ratio, outcome.latency.lo, outcome.latency.hi],
            "psnr_median": outcome.fidelity.psnr_median,
            "tier": outcome.tier,
        }
        broken = _promise(written, outcome, task.base_tier)
        entry = entry_of(
            written, "weaker" if broken else "candidate", broken, call=self._call, level=verdict.level,
            guards=verdict.guards, measured=json.loads(json.dumps(found)),
        )  # fmt: skip
        self._keep(written, entry)
        return broken

    def _note(
        self, written: GeneratedPass, status: Status, why: str, level: int | None = None, guards: tuple[str, ...] = ()
    ) -> str:
        self._keep(written, entry_of(written, status, why, call=self._call, level=level, guards=guards))
        return why

    def _keep(self, written: GeneratedPass, entry: Entry) -> None:
        self.library.add(written, entry)
        self._written[entry.name] = f"{entry.status}{entry.why and f': {one_line(entry.why)}'}"

    @property
    def _call(self) -> str:
        return self._reply.call if self._reply is not None else ""


def _promise(written: GeneratedPass, outcome: Measured, base_tier: str) -> str:
    """Return how the images are worse than promised, or ""."""
    if TIERS.index(outcome.tier) <= max(TIERS.index(written.tier), TIERS.index(base_tier)):
        return ""
    psnr = outcome.fidelity.psnr_median
    return f"it promises {written.tier} and the images are of tier {outcome.tier}: a median of {psnr:.1f} dB"


def _summary(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
