"""Propose plans: ordered passes with parameters, from a language model, checked before anything is measured."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import canonical_text
from diffopt.llm.answer import one_line
from diffopt.llm.catalogue import catalogue_for
from diffopt.llm.client import Client, Message, Problem, Question, Reply
from diffopt.llm.feedback import Trial, history_text
from diffopt.llm.plans import Hint, Plan, Plans, build, plan_schema, wrong
from diffopt.llm.template import data_block, load
from diffopt.llm.transcript import Transcript
from diffopt.passes.base import registry
from diffopt.passes.pipeline import Trace

_PASSING = frozenset({"available_bytes", "load_average"})
"""Device facts of the moment: they say little, and would make every prompt a new one to the transcript."""


FORMAT = 1
"""Of what a planner's answers are kept as."""


@dataclass(frozen=True)
class Accepted:
    """A plan that became a trace."""

    trace: str
    reason: str  # the model's words, one line
    call: str  # where it stands in the transcript


@dataclass(frozen=True)
class Rejected:
    """A plan that was not measured, and why."""

    plan: str
    reason: str  # the model's words, one line
    diagnostic: str
    call: str


class Planner:
    """A `search.Proposer` that asks a language model.

    One question a call, with one repair turn for malformed JSON and one for plans that break a rule. Whatever the
    model says can only become typed traces. `accepted`, `rejected` and `problems` keep what happened, oldest first.
    """

    name = "llm"
    outside = True  # its plans have to earn their measurements

    def __init__(
        self,
        client: Client,
        transcript: Transcript,
        *,
        goal: str,
        device: Mapping[str, object],
        knowledge: Callable[[ModuleOp], str] = lambda module: "",
    ) -> None:
        """Prepare a planner.

        Args:
            goal: what the user wants, in a sentence, constraints included.
            device: facts about the device, JSON values; those of the moment, such as free memory, are left out.
            knowledge: what is known of pipelines like a module, as text.
        """
        self.client = client
        self.transcript = transcript
        self.goal = goal
        self.knowledge = knowledge
        self.hints: tuple[Hint, ...] = ()
        self.device = {name: fact for name, fact in device.items() if name not in _PASSING}
        self.accepted: list[Accepted] = []
        self.rejected: list[Rejected] = []
        self.problems: list[Problem] = []
        self._answered = False

    def to_json(self) -> dict[str, Any]:
        """Return what the model said so far, and what became of it; see `restore`."""
        return {
            "format": FORMAT,
            "hints": [hint.model_dump() for hint in self.hints],
            "accepted": [asdict(item) for item in self.accepted],
            "rejected": [asdict(item) for item in self.rejected],
            "problems": [asdict(item) for item in self.problems],
        }

    def restore(self, data: Mapping[str, Any]) -> None:
        """Take up what `to_json` returned in an earlier session of a run, which is not asked for again.

        Raises:
            DiffoptError: it is of another format, or none of its making.
        """
        try:
            if data["format"] != FORMAT:
                raise DiffoptError(f"what the planner said is of format {data['format']}, not {FORMAT}")
            self.hints = tuple(Hint.model_validate(item) for item in data["hints"])
            self.accepted = [Accepted(**item) for item in data["accepted"]]
            self.rejected = [Rejected(**item) for item in data["rejected"]]
            self.problems = [Problem(**item) for item in data["problems"]]
        except (KeyError, TypeError, ValueError) as error:
            raise DiffoptError(f"what the planner said cannot be read ({type(error).__name__})") from None

    def propose(
        self,
        module: ModuleOp,
        history: Sequence[Trial],
        count: int,
        *,
        task: str = "",
        known: Sequence[Trial] | None = None,
    ) -> list[Trace]:
        """Return up to `count` legal traces that lead to programs not measured yet, in the model's order.

        Args:
            history: what the model is shown.
            task: a section of the prompt template that says more of what is wanted.
            known: what counts as measured already, where that is more than is shown.

        Raises:
            DiffoptError: the endpoint never gave an answer since this planner was made, or replay misses.
        """
        if count < 1:
            return []
        measured = history if known is None else known
        seen = {trial.candidate.key: f"{trial.candidate.trace}, measured already" for trial in measured}
        found: list[Trace] = []
        reply = self.client.ask(self._question(module, history, count, task), self.transcript)
        broken = self._take(reply, module, seen, found, count)
        if broken and len(found) < count:
            # One repair turn for the rules; a malformed answer to it is not asked for again.
            reply = self.client.ask(reply.question.follow(reply, _repair(broken)), self.transcript)
            self._take(reply, module, seen, found, count)
        return found

    def _question(self, module: ModuleOp, history: Sequence[Trial], count: int, task: str) -> Question[Plans]:
        template = load("planner")
        rejected = "\n".join(f"- {one_line(item.plan)} | {item.diagnostic}" for item in self.rejected[-12:])
        user = template.render(
            "user",
            goal=one_line(self.goal, 1000),
            device=json.dumps(self.device, indent=1, sort_keys=True, default=str),
            catalogue=catalogue_for(module),
            module=data_block(_module_text(module)),
            history=data_block(history_text(history)),
            rejected=data_block(rejected or "nothing yet"),
            knowledge=data_block(self.knowledge(module) or "nothing yet"),
            instruction=f"{template.render(task)}\n" if task else "",
            count=str(count),
        )
        messages = (Message("system", template.render("system")), Message("user", user))
        return Question(messages, Plans, plan_schema(registry()), template=template.identity)

    def _take(
        self, reply: Reply[Plans], module: ModuleOp, seen: dict[str, str], found: list[Trace], count: int
    ) -> list[Rejected]:
        """Add the usable plans of a reply to `found`; return those that break a rule."""
        if reply.value is None:
            self._note(reply)
            return []
        self._answered = True
        self._take_hints(reply)
        broken: list[Rejected] = []
        for plan in reply.value.plans:
            if len(found) == count or len(broken) == 2 * count + 8:
                break
            built = build(plan, module, seen)
            if isinstance(built, str):
                broken.append(Rejected(_shown(plan), one_line(plan.reason), built, reply.call))
                continue
            trace, key = built
            seen[key] = f"{trace}, proposed already"
            found.append(trace)
            self.accepted.append(Accepted(str(trace), one_line(plan.reason), reply.call))
        self.rejected += broken
        return broken

    def _take_hints(self, reply: Reply[Plans]) -> None:
        """Keep the hints that say something; the others are noted like plans that were refused."""
        for hint in reply.value.hints[:64] if reply.value is not None else ():
            reason = wrong(hint, registry())
            if reason:
                self.rejected.append(Rejected(f"hint for {one_line(hint.name, 100)}", "", reason, reply.call))
            else:
                self.hints = (*(known for known in self.hints if known.name != hint.name), hint)

    def _note(self, reply: Reply[Plans]) -> None:
        self.problems.append(Problem(reply.status, one_line(reply.message), reply.call))
        if reply.status not in ("rejected", "unavailable"):
            self._answered = self._answered or reply.status != "budget"
            return
        if not self._answered:
            raise DiffoptError(f"the LLM does not answer: {reply.message}", hint="or go on with --planner rules")


def _module_text(module: ModuleOp) -> str:
    """Print the module without the folders of the machine it was lifted on."""
    copy = module.clone()
    for component in components(copy).values():
        model = component.values.get("model")
        if isinstance(model, str):
            component.set_value("model", model.replace("\\", "/").rstrip("/").rpartition("/")[2])
    return canonical_text(copy)


def _shown(plan: Plan) -> str:
    return one_line(str(plan))


def _repair(broken: Sequence[Rejected]) -> str:
    lines = "\n".join(f"{number}. {item.plan}: {item.diagnostic}" for number, item in enumerate(broken, 1))
    return load("planner").render("repair", diagnostics=lines)
