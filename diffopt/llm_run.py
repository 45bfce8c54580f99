"""The language model's part in one run: its transcript, planner, coder, and what they cost."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.agents import Agent, LlmSettings, describe_goal, transcript_for
from diffopt.bench.device import devices
from diffopt.bench.disk import write_text
from diffopt.bench.outcome import Measured, Outcome
from diffopt.events import Asked, Listener, Stage, Told
from diffopt.ir.errors import DiffoptError
from diffopt.llm import lessons
from diffopt.llm.best_of_n import BestOfN
from diffopt.llm.client import Client, Problem
from diffopt.llm.coder import Coder, Task
from diffopt.llm.diffagent import DiffAgent
from diffopt.llm.knowledge import Situation, knowledge_text
from diffopt.llm.library import Library
from diffopt.llm.planner import Planner
from diffopt.llm.rewriter import SandboxedRewriter
from diffopt.llm.sandbox import Limits
from diffopt.llm.sequential import Sequential
from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace, applied, key
from diffopt.search.goals import violation
from diffopt.search.hints import Hint, HintedSpace
from diffopt.search.records import Candidate, Trial
from diffopt.session import measure, program, run_search

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from diffopt.api import Goal
    from diffopt.bench.evaluate import Evaluator
    from diffopt.ir.rewrite import Rewriter
    from diffopt.search.budget import Budget
    from diffopt.search.engine import Engine
    from diffopt.search.records import Proposer

PLANNER = "planner.json"
CANDIDATES_A_PASS = 4
"""Programs that one new pass may have measured beyond the budget: itself and three fixes."""


class LlmRun:
    """Wires a client to one run. Everything the model is asked and answers stands in `llm.jsonl` of its folder."""

    def __init__(
        self,
        client: Client,
        folder: Path,
        module: ModuleOp,
        goal: Goal,
        target: str,
        settings: LlmSettings,
        rewriter: SandboxedRewriter,
        *,
        data: Path,
        seed: int,
    ) -> None:
        self._client, self._folder, self._module, self._settings = client, folder, module, settings
        self._goal, self._rewriter, self._seed = goal, rewriter, seed
        self._constraints = goal.constraints()
        found = devices(accelerators=target != "cpu")
        self._device = next((d for d in found if str(d["device"]).startswith(target)), found[0])
        self._transcript = transcript_for(client, settings, folder / "llm.jsonl")
        self._lessons = data / "lessons.jsonl"
        self._situation = Situation.of(module, target)
        self._knowledge = self._known()
        self._coder_problems: list[Problem] = []
        self._planner = Planner(
            client, self._transcript, goal=describe_goal(goal), device=self._device,
            knowledge=lambda module: self._knowledge,
        )  # fmt: skip

    def agent(self, mode: str, rules: Sequence[Proposer]) -> Agent:
        """Return what acts in the run.

        Args:
            mode: as `--planner` names it.
            rules: proposers that stand beside the model where the engine searches.
        """
        strategies: dict[str, Callable[[], DiffAgent | BestOfN | Sequential]] = {
            "diffagent": lambda: DiffAgent(
                self._planner, keeps=self._keeps, satisfied=self._satisfied, seed=self._seed
            ),
            "best-of-n": lambda: BestOfN(self._planner),
            "sequential": lambda: Sequential(self._planner),
        }
        searching = self._directed(strategies[mode]()) if mode in strategies else run_search
        asked = [KeptPlanner(self._planner, self._folder / PLANNER)] if mode == "llm" else []
        proposers = [] if mode in strategies else [*asked, *rules]
        return Agent(
            proposers,
            searching=self._with_coder(searching) if self._settings.passes else searching,
            rewriter=self._rewriter,
            steer=lambda space: HintedSpace(space, self._hints),
            report=lambda: self._report(mode),
            finish=self._learn,
        )

    def _directed(self, strategy: DiffAgent | BestOfN | Sequential) -> Callable[..., str]:
        def search(
            engine: Engine, evaluator: Evaluator, module: ModuleOp, budget: Budget, listen: Listener,
            rewriter: Rewriter | None,
        ) -> str:  # fmt: skip
            return strategy.search(module, Measuring(engine, evaluator, module, budget, listen, rewriter))

        return search

    def _with_coder(self, first: Callable[..., str]) -> Callable[..., str]:
        """Search, then have new passes written for the best program found."""

        def search(
            engine: Engine, evaluator: Evaluator, module: ModuleOp, budget: Budget, listen: Listener,
            rewriter: Rewriter | None,
        ) -> str:  # fmt: skip
            reason = first(engine, evaluator, module, budget, listen, rewriter)
            listen(Stage(f"stopped: {reason}; having {self._settings.passes} new passes written"))
            # What an earlier session had measured for passes comes again, in its order, as the model asks again.
            history = [t for t in engine.trials() if not t.candidate.origin.startswith("coder:")]
            most = len(history) + CANDIDATES_A_PASS * self._settings.passes
            take = Measuring(engine, evaluator, module, type(budget)(candidates=most), listen, rewriter)

            def outcome_of(trace: Trace, origin: str) -> Outcome | None:
                trial = take(trace, origin)
                if trial is None:
                    return None
                history.append(trial)
                return trial.outcome

            coder = Coder(
                self._client, self._transcript, Library(self._folder / "passes"), outcome_of,
                goal=describe_goal(self._goal), device=self._planner.device,
                limits=Limits(level=self._settings.sandbox_level),
            )  # fmt: skip
            self._coder_problems = coder.problems
            kept = 0
            for _ in range(self._settings.passes):
                kept += coder.write(self._task(history, module, rewriter)).piece is not None
            return f"{reason}; of {self._settings.passes} new passes {kept} work"

        return search

    def _task(self, trials: Sequence[Trial], module: ModuleOp, rewriter: Rewriter | None) -> Task:
        """Return what a pass is written for: the fastest program that is as it should be, else the baseline."""
        keeping = [trial for trial in trials if self._keeps(trial) and isinstance(trial.outcome, Measured)]
        best = max(
            keeping, key=lambda t: t.outcome.latency.ratio if isinstance(t.outcome, Measured) else 0, default=None
        )
        base = Trace.parse(best.candidate.trace) if best is not None else Trace()
        tier = best.outcome.tier if best is not None and isinstance(best.outcome, Measured) else "exact"
        target = program(applied(base, module), "target", rewriter).pipeline_py
        return Task(base, target, tier, trials, self._knowledge)

    def _keeps(self, trial: Any) -> bool:
        return isinstance(trial.outcome, Measured) and not violation(
            self._constraints, trial.outcome, trial.candidate.facts
        )

    def _satisfied(self, trial: Any) -> bool:
        """Tell whether the user's target is met: only a bound on latency is one."""
        return self._constraints.max_latency_s is not None and self._keeps(trial)

    def _hints(self) -> tuple[Hint, ...]:
        return tuple(
            Hint(hint.name, hint.weight, {r.option: (r.low, r.high) for r in hint.ranges})
            for hint in self._planner.hints
        )

    def _known(self) -> str:
        """Return what is known, as the run first knew it: a resumed run must ask what it asked."""
        file = self._folder / "knowledge.txt"
        if not file.exists():
            write_text(file, knowledge_text(self._situation, lessons.read(self._lessons)))
        return file.read_text(encoding="utf-8")

    def _learn(self, trials: Sequence[Trial]) -> None:
        """Keep what this run teaches for others."""
        about = self._situation
        found = lessons.lessons_of(
            trials, pipeline=about.pipeline, denoiser=about.denoiser, architecture=about.architecture,
            device=about.device, origin=f"run {self._folder.name}",
        )  # fmt: skip
        lessons.add(self._lessons, found)

    def _report(self, mode: str) -> dict[str, Any]:
        spent, planner = self._client.spent, self._planner
        written = list(Library(self._folder / "passes"))
        # A session that found all it needed in the store rewrote nothing itself: what held when passes were checked is said.
        guards = self._rewriter.guards or next((entry.guards for _, entry in written if entry.guards), ())
        return {
            "planner": mode,
            "model": self._client.model,
            "calls": spent.calls,
            "prompt_tokens": spent.usage.prompt_tokens,
            "answer_tokens": spent.usage.completion_tokens,
            "money": spent.money,
            "accepted": len(planner.accepted),
            "rejected": [{"plan": r.plan, "why": r.diagnostic, "call": r.call} for r in planner.rejected],
            "problems": [dataclasses.asdict(p) for p in (*planner.problems, *self._coder_problems)],
            "passes": [
                {"name": entry.name, "code": made.id, "status": entry.status, "why": entry.why, "level": entry.level}
                for made, entry in written
            ],
            "sandbox": list(guards),
        }


class KeptPlanner:
    """The planner of a run whose engine searches: asked once in its life, and what it said is there after a restart."""

    name, outside = Planner.name, Planner.outside

    def __init__(self, planner: Planner, file: Path) -> None:
        """Take up what the file holds.

        Raises:
            DiffoptError: it cannot be read.
        """
        self._planner, self._file = planner, file
        if file.exists():
            try:
                planner.restore(json.loads(file.read_text(encoding="utf-8")))
            except (ValueError, DiffoptError) as error:
                raise DiffoptError(str(error), str(file), "start again with --force") from None

    def propose(self, module: ModuleOp, history: Sequence[Trial], count: int) -> list[Trace]:
        """See `Proposer`."""
        found = self._planner.propose(module, history, count)
        write_text(self._file, json.dumps(self._planner.to_json(), ensure_ascii=False))
        return found


class Measuring:
    """A strategy's `Measure`: each program once in the life of the run, within the budget, everything in the store."""

    def __init__(
        self,
        engine: Engine,
        evaluator: Evaluator,
        module: ModuleOp,
        budget: Budget,
        listen: Listener,
        rewriter: Rewriter | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._evaluator, self._module, self._budget = engine, evaluator, module, budget
        self._listen, self._rewriter, self._clock = listen, rewriter, clock
        self._started = clock()

    @property
    def spent(self) -> bool:
        """See `Measure`."""
        return self._budget.spent(self._clock() - self._started, len(self._engine.trials())) is not None

    def __call__(self, trace: Trace, origin: str) -> Trial | None:
        """See `Measure`."""
        name = key(trace, self._module)
        known = {trial.candidate.key: trial for trial in self._engine.trials()}
        if isinstance(name, Refusal) or name in known:
            return known.get(str(name))
        if self.spent:
            return None
        candidate = self._engine.offer(trace, origin)
        if candidate is None:  # asked for by a session that was stopped before it was told
            candidate = next((c for c in self._engine.candidates() if c.key == name), None)
        if not isinstance(candidate, Candidate):
            return None
        self._listen(Asked(candidate))
        outcome = measure(self._evaluator, self._module, candidate.trace, self._rewriter)
        self._engine.tell(candidate, outcome)
        self._listen(Told(candidate, outcome))
        return Trial(candidate, outcome)
