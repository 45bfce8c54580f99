"""Ask for the next program to measure, tell what came of it: the search, stateless over its store."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.errors import DiffoptError
from diffopt.passes.pipeline import Trace
from diffopt.search.acquisition import worth
from diffopt.search.facts import trace_facts
from diffopt.search.goals import LEVELS, Constraints, Level, measured, seconds_of, winners
from diffopt.search.history import History, features, read
from diffopt.search.records import Attempt, Candidate, Proposal, Proposer, Trial
from diffopt.search.repair import repair
from diffopt.search.selection import front
from diffopt.search.space import Legal, PassSpace, Refused, Space, Steps, tidy
from diffopt.search.standing import disappointing, unearned
from diffopt.search.surrogate import Surrogate
from diffopt.search.variation import LONGEST, vary

if TYPE_CHECKING:
    from diffopt.bench.outcome import Outcome
    from diffopt.ir.description import JSON
    from diffopt.search.store import TrialStore


PROGRAM_S = 0.03
"""Seconds that one offspring takes, with the checks on the way to it; about, on one core."""


@dataclass(frozen=True)
class Settings:
    """How the search works; the defaults suit budgets of 8 to 60 measurements.

    Args:
        proposals: traces asked of each proposer.
        opening: candidates taken from the proposers in their order before the surrogate may choose among them; of
            those from outside, only until there is one.
        population: programs that parents are drawn from.
        offspring: new programs the surrogate compares for one measurement, in each round.
        rounds: how often the best of them become parents of others at most, before one is measured.
        patience: share of a measurement's time that may go into these rounds; None for no such bound. Two are always had.
        scattered: programs written from nothing, of which the least like any known is measured, while there is no
            surrogate.
        exploration: share of candidates taken at random in spite of the surrogate.
        levels: demands whose winners the search cares for beside the front; none for the front alone.
        walk: programs looked at when the operators find nothing new, before the space counts as exhausted.
        trust: proposals whose parts mostly failed so far, less than this share of times well, wait for the others.
    """

    proposals: int = 24
    opening: int = 8
    population: int = 12
    offspring: int = 20
    rounds: int = 6
    patience: float | None = 0.1
    scattered: int = 20
    exploration: float = 0.0
    levels: tuple[Level, ...] = LEVELS
    walk: int = 3000
    trust: float = 0.35


@dataclass(frozen=True)
class _Choice:
    steps: Steps
    legal: Legal
    origin: str
    predicted: float | None = None
    rank: tuple[float, float] = (0.0, 0.0)


class Engine:
    """Chooses which program to measure next.

    All it knows it reads from the store at each `ask`, and the randomness of an `ask` follows from the seed and the
    number of candidates so far: the same tells in the same order give the same candidates, whether or not the process
    was killed in between. A candidate that an earlier process asked for and never told is handed out again first.

    Args:
        module: the lifted module; never changed.
        store: where everything is kept; may hold other runs.
        proposers: asked once, when the run begins; the first has precedence.
        manifest: written down with a new run; `module` and `seed` are added to it.

    Raises:
        DiffoptError: the run exists and was made for another module, or with another manifest.
    """

    def __init__(
        self,
        module: ModuleOp,
        store: TrialStore,
        *,
        run_id: str,
        seed: int = 0,
        proposers: Sequence[Proposer] = (),
        constraints: Constraints | None = None,
        space: Space | None = None,
        settings: Settings | None = None,
        manifest: Mapping[str, JSON] | None = None,
    ) -> None:
        self.constraints = constraints or Constraints()
        self.run_id = run_id
        self._module, self._store, self._proposers = module, store, tuple(proposers)
        self._settings = settings or Settings()
        self._space = space or PassSpace(module, keep_steps=self.constraints.keep_steps)
        baseline = self._space.check(())
        if isinstance(baseline, Refused):
            raise DiffoptError(f"nothing can be done with this pipeline: {baseline.refusal}")
        self._baseline_key = baseline.key
        self._handed_out: set[int] = set()
        given = {**(manifest or {}), "module": baseline.key}
        found = store.open_run(run_id, {**given, "seed": seed})
        for name, value in given.items():
            if found.get(name) != json.loads(json.dumps(value)):
                what = {"module": "pipeline"}.get(name, name)
                raise DiffoptError(
                    f"run {run_id!r} in the store was made with another {what}",
                    hint="go on with what it was made with, or start again with --force",
                )
        self.seed = int(str(found["seed"]))

    def ask(self) -> Candidate | None:
        """Return the next candidate to measure, or `None` where there is no program left to try.

        Each is legal, and no two of a run lead to the same program. It is in the store before it is returned.
        """
        for candidate in self._store.pending(self.run_id):
            if candidate.id not in self._handed_out:
                self._handed_out.add(candidate.id)
                return candidate
        proposals = self._store.proposals(self.run_id)
        if proposals is None:
            proposals = self._consult()
        asked = self._store.candidates(self.run_id)
        choice = self._choose(asked, proposals, np.random.default_rng([self.seed, len(asked)]))
        if choice is None:
            return None
        candidate = self._store.add_candidate(
            self.run_id,
            trace=str(Trace(tidy(choice.steps, self._space))),
            key=choice.legal.key,
            origin=choice.origin,
            facts=choice.legal.facts,
            predicted=choice.predicted,
        )
        self._handed_out.add(candidate.id)
        return candidate

    def offer(self, trace: Trace, origin: str) -> Candidate | Refused | None:
        """Take a program from outside as the next candidate; `None` where it was asked for already, or is the baseline.

        Each is in the store before it is returned, like those of `ask`.
        """
        legal = self._space.check(trace.passes)
        if isinstance(legal, Refused):
            return legal
        if legal.key in {self._baseline_key, *(c.key for c in self._store.candidates(self.run_id))}:
            return None
        steps = tidy(trace.passes, self._space)
        candidate = self._store.add_candidate(
            self.run_id, trace=str(Trace(steps)), key=legal.key, origin=origin, facts=legal.facts, predicted=None
        )
        self._handed_out.add(candidate.id)
        return candidate

    def tell(self, candidate: Candidate, outcome: Outcome) -> None:
        """Write down what came of a candidate; on disk when this returns."""
        self._store.tell(self.run_id, candidate.id, outcome)

    def trials(self) -> tuple[Trial, ...]:
        """Return all candidates that have an outcome, in the order of telling."""
        return self._store.trials(self.run_id)

    def candidates(self) -> tuple[Candidate, ...]:
        """Return all candidates so far, pending ones included."""
        return self._store.candidates(self.run_id)

    def front(self) -> tuple[Trial, ...]:
        """Return the measured trials that meet the constraints and that no other of them dominates."""
        history = read(self.trials(), self.constraints, self._space)
        return tuple(history.trials[i] for i in front(history.points, history.violations))

    def winners(self) -> dict[str, Trial]:
        """Return the fastest trial of each level of fidelity; see `goals.winners`."""
        return winners(self.trials(), constraints=self.constraints)

    def _consult(self) -> tuple[Proposal, ...]:
        """Ask the proposers, one trace of each in turn; write down the legal ones, and why the others are not."""
        history, count = self.trials(), self._settings.proposals
        offered = [[(p.name, t) for t in p.propose(self._module, history, count)] for p in self._proposers]
        proposals: list[Proposal] = []
        refused: list[Attempt] = []
        keys = {self._baseline_key: "the baseline"}
        for name, trace in (pair for row in zip_longest(*offered) for pair in row if pair is not None):
            verdict = self._space.check(trace.passes)
            if isinstance(verdict, Refused):
                why = verdict.refusal
                refused.append(Attempt(str(trace), name, why.reason, why.where, why.rule))
            elif verdict.key in keys:
                refused.append(Attempt(str(trace), name, f"leads to the same program as {keys[verdict.key]}"))
            else:
                keys[verdict.key] = str(trace)
                proposals.append(Proposal(str(trace), verdict.key, name, verdict.facts))
        self._store.add_proposals(self.run_id, proposals, refused)
        return tuple(proposals)

    def _choose(
        self, asked: Sequence[Candidate], proposals: Sequence[Proposal], rng: np.random.Generator
    ) -> _Choice | None:
        seen = {self._baseline_key, *(c.key for c in asked)}
        trials = self.trials()
        history = read(trials, self.constraints, self._space)
        waiting = [c for p in proposals if p.key not in seen and (c := self._proposed(p)) is not None]
        outside = {proposer.name for proposer in self._proposers if getattr(proposer, "outside", False)}
        doubted = disappointing(trials) | unearned(outside, asked, history)
        heard = [c for c in waiting if c.origin not in doubted]
        trusted = [c for c in heard if history.trust(c.steps) >= self._settings.trust]
        surrogate = history.surrogate()
        opening = [c for c in trusted if surrogate is None or c.origin not in outside]
        if opening and len(asked) < self._settings.opening:
            return opening[0]
        if surrogate is None and heard:
            return (trusted or heard)[0]
        parents = history.parents(self._settings.population)
        if surrogate is None:
            # Too little is known to aim: cover the space.
            pool = self._offspring([], seen, rng, self._settings.scattered)
            return _farthest(pool, history.steps) or self._walk(seen)
        if rng.random() < self._settings.exploration:
            return next(iter(self._offspring(parents, seen, rng, 1)), None) or self._walk(seen)
        return self._best(surrogate, history, waiting, parents, seen, rng) or self._walk(seen)

    def _best(
        self,
        surrogate: Surrogate,
        history: History,
        waiting: Sequence[_Choice],
        parents: Sequence[Steps],
        seen: set[str],
        rng: np.random.Generator,
    ) -> _Choice | None:
        """Return the program worth most, less where its parts tend to fail, after some rounds of bettering it unmeasured."""
        flying = [
            {**c.facts, **trace_facts(self._space.parse(c.trace).passes)} for c in self._store.pending(self.run_id)
        ]
        pool: list[_Choice] = []
        made: Sequence[_Choice] = [*waiting, *self._offspring(parents, seen, rng, self._settings.offspring)]
        for left in reversed(range(self._rounds(history))):
            pool = sorted(
                [*pool, *self._weighed(surrogate, history, made, flying)], key=lambda choice: choice.rank, reverse=True
            )
            if left:
                best, known = [c.steps for c in pool[: self._settings.population]], seen | {c.legal.key for c in pool}
                made = self._offspring(best, known, rng, self._settings.offspring)
        return pool[0] if pool else None

    def _rounds(self, history: History) -> int:
        """Return how many rounds a measurement is worth, by what those so far took; a resumed run decides the same."""
        most, patience = self._settings.rounds, self._settings.patience
        took = [seconds_of(outcome) for trial in history.trials if (outcome := measured(trial)) is not None]
        if patience is None or not took:
            return most
        return min(most, max(2, int(patience * median(took) / (PROGRAM_S * self._settings.offspring))))

    def _weighed(
        self,
        surrogate: Surrogate,
        history: History,
        choices: Sequence[_Choice],
        flying: Sequence[Mapping[str, float]],
    ) -> list[_Choice]:
        """Return the choices with what they are expected to be worth while others are being measured."""
        if not choices:
            return []
        mean, deviation = surrogate.predict([features(c.steps, c.legal) for c in choices], flying)
        pending = surrogate.predict(flying)[0] if flying else None
        kept = [bool(c.legal.facts.get("steps_kept")) for c in choices]
        found = worth(history, self.constraints, mean, deviation, kept, self._settings.levels, pending)
        return [
            replace(choice, predicted=float(sure), rank=(float(sure) * history.trust(choice.steps), -float(excess)))
            for choice, sure, excess in zip(choices, found.sure, found.excess, strict=True)
        ]

    def _offspring(
        self, parents: Sequence[Steps], seen: set[str], rng: np.random.Generator, count: int
    ) -> list[_Choice]:
        """Return up to `count` new legal programs made from the parents, or from nothing where there are none."""
        found: dict[str, _Choice] = {}
        for _ in range(5 * count + 40):
            varied, operator = vary(parents, self._space, rng)
            steps = repair(varied, self._space, rng) if varied else None
            if steps is None:
                continue
            legal = self._space.check(steps)
            if isinstance(legal, Legal) and legal.key not in seen and legal.key not in found:
                found[legal.key] = _Choice(steps, legal, f"variation:{operator}")
                if len(found) == count:
                    break
        return list(found.values())

    def _walk(self, seen: set[str]) -> _Choice | None:
        """Return the first unseen program on a walk through all that the passes' own spaces lead to."""
        reached = {self._baseline_key}
        queue: deque[Steps] = deque([()])
        while queue and len(reached) < self._settings.walk:
            steps = queue.popleft()
            for following in self._following(steps):
                legal = self._space.check(following)
                if isinstance(legal, Refused) or legal.key in reached:
                    continue
                if legal.key not in seen:
                    return _Choice(following, legal, "walk")
                reached.add(legal.key)
                queue.append(following)
        return None

    def _following(self, steps: Steps) -> Iterator[Steps]:
        if len(steps) < LONGEST:
            for name in self._space.names:
                yield from ((*steps, step) for step in self._space.instances(name, steps))

    def _proposed(self, proposal: Proposal) -> _Choice | None:
        steps = self._space.parse(proposal.trace).passes
        legal = self._space.check(steps)
        # A pass may have changed since the proposal was stored; then its key is another, or it is refused.
        return (
            _Choice(steps, legal, proposal.origin) if isinstance(legal, Legal) and legal.key == proposal.key else None
        )


def _farthest(pool: Sequence[_Choice], known: Sequence[Steps]) -> _Choice | None:
    """Return the choice that shares the least with any known program, by Jaccard's distance of their traces."""
    described = [set(trace_facts(steps).items()) for steps in known]

    def distance(choice: _Choice) -> float:
        mine = set(trace_facts(choice.steps).items())
        return min((1 - len(mine & other) / max(len(mine | other), 1) for other in described), default=1.0)

    return max(pool, key=distance, default=None)
