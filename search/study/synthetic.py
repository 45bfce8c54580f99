"""A synthetic problem with hidden interactions, whose best programs are known because all of them can be counted."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations, permutations
from typing import Self, TypeAlias

import moocore
import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.outcome import Failed, Fidelity, Latency, Measured, Memory, Outcome
from diffopt.passes.base import DiffusionPass, Refusal
from diffopt.passes.pipeline import Trace
from diffopt.search.facts import SHALLOW, WORK, trace_facts
from diffopt.search.goals import PSNR_CEILING_DB
from diffopt.search.records import Candidate, Proposer, Trial
from diffopt.search.selection import REFERENCE, Points, hypervolume
from diffopt.search.space import Legal, Refused, Steps
from diffopt.search.study.imagined import BEFORE, EXCLUDED, GRID, INSTANCES, ORDER_MATTERS

Numbers: TypeAlias = NDArray[np.float64]
Options: TypeAlias = Mapping[str, Mapping[str, NDArray[np.generic]]]

_TEXTS: dict[DiffusionPass, str] = {step: str(Trace((step,))) for steps in INSTANCES.values() for step in steps}

NOISE_LATENCY, NOISE_PSNR = 0.03, 0.2
"""Standard deviations of a measurement: relative, and in dB."""


@dataclass
class Synthetic:
    """Ten passes with conflicts, order rules, typed options and random interactions that only measuring tells.

    Args:
        seed: of the interactions; each is another problem.
        names: passes a program may hold.
        broken: programs with this text in their trace fail.
    """

    seed: int = 0
    names: tuple[str, ...] = tuple(GRID)
    broken: str = ""
    checked: dict[Steps, Legal | Refused] = field(default_factory=dict)
    hidden: dict[tuple[str, ...], tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        for left in GRID:
            for right in GRID:
                self.hidden[left, right] = (rng.normal(0, 0.08), rng.normal(0, 0.15))
            self.hidden[(left,)] = (rng.normal(0, 0.1), rng.normal(0, 0.3))

    @property
    def space(self) -> Self:
        """See `Problem`."""
        return self

    @property
    def module(self) -> ModuleOp:
        """An empty one: the passes are never applied."""
        return ModuleOp([])

    @property
    def vocabulary(self) -> Mapping[str, Steps]:
        """See `Problem`."""
        return {name: INSTANCES[name] for name in self.names}

    def seeds(self) -> Sequence[Proposer]:
        """See `Problem`."""
        return (Experts(self),)

    def truth(self, trial: Trial) -> Points:
        """See `Problem`."""
        ratio, psnr, memory = self.effect(self.parse(trial.candidate.trace).passes)
        return np.array([-math.log(ratio), -min(psnr, PSNR_CEILING_DB), math.log(memory)])

    def instances(self, name: str, before: Steps) -> Steps:
        """See `Space`."""
        # What stands before refuses a pass whatever its options are.
        known = INSTANCES[name]
        return known if self._refused((*before, known[0]), len(before)) is None else ()

    def check(self, steps: Steps) -> Legal | Refused:
        """See `Space`."""
        if steps not in self.checked:
            self.checked[steps] = self._check(steps)
        return self.checked[steps]

    def _check(self, steps: Steps) -> Legal | Refused:
        if steps:
            earlier = self.check(steps[:-1])
            if isinstance(earlier, Refused):
                return earlier
            refusal = self._refused(steps, len(steps) - 1)
            if refusal is not None:
                return Refused(refusal, len(steps) - 1)
        names = [s.name for s in steps]
        orders = [f"{a}<{b}" for a, b in ORDER_MATTERS if a in names and b in names and names.index(a) < names.index(b)]
        text = "|".join(sorted(_TEXTS[s] for s in steps) + orders)
        facts = {**trace_facts(steps), "steps_kept": float("fewer" not in names), **_work(steps)}
        return Legal(hashlib.sha256(text.encode()).hexdigest()[:16], {k: v for k, v in facts.items() if "<" not in k})

    def parse(self, text: str) -> Trace:
        """See `Space`."""
        steps = []
        for part in text.split(",") if text else []:
            name, _, rest = part.partition("{")
            made = GRID[name][0]
            values: dict[str, object] = {}
            for pair in rest.rstrip("}").split():
                option, _, value = pair.partition("=")
                kind = type(getattr(made(), option))
                values[option] = value == "true" if kind is bool else kind(value.strip('"'))
            steps.append(made(**values))
        return Trace(tuple(steps))

    def effect(self, steps: Steps) -> tuple[float, float, float]:
        """Return latency ratio, PSNR in dB and memory ratio without noise."""
        options = {s.name: {o: np.asarray(getattr(s, o)) for o in GRID[s.name][1]} for s in steps}
        latency, psnr, memory = self._effect([s.name for s in steps], options)
        return 1 / float(latency), float(psnr), float(memory)

    def _effect(self, names: Sequence[str], options: Options) -> tuple[Numbers, Numbers, Numbers]:
        """Return relative latency, PSNR and relative memory of programs of the same passes in the same order."""
        zero = np.zeros(())
        calls, cost, error, memory = zero + 50.0, zero, zero + 1e-9, zero
        if "fewer" in options:
            count, solver = options["fewer"]["count"].astype(float), options["fewer"]["solver"]
            order = _chosen(solver, {"one": 1.0, "two": 1.6, "three": 1.9})
            error = error + 0.02 * _chosen(solver, {"one": 1, "two": 2, "three": 5}) * count**-order
            calls = count
        if "cache" in options:
            interval = options["cache"]["interval"].astype(float)
            error = error + 2e-5 * (interval - 1) ** 2 * (50 / calls)
            calls = calls / interval + 0.3 * (calls - calls / interval)
        if "window" in options:
            stop = options["window"]["stop"].astype(float)
            cost, error = cost + np.log(0.5 + 0.5 * stop), error + 3e-4 * (1 - stop) ** 2
        if "engine" in options:
            backend, half = options["engine"]["backend"], options["engine"]["half"].astype(bool)
            cost = cost - _chosen(backend, {"x": 0.9, "y": 0.6, "z": 0.4}) - np.where(half, 0.45, 0.0)
            error = error + np.where(half, 1e-6, 1e-8)
            memory = memory + _chosen(backend, {"x": 0.3, "y": 0.1, "z": 0.0})
        if "bits" in options:
            width = options["bits"]["width"]
            cost, memory = cost - 0.1, memory - _chosen(width, {"w8": 0.3, "w4": 0.5})
            error = error + _chosen(width, {"w8": 5e-6, "w4": 3e-4})
        if "tokens" in options:
            share = options["tokens"]["share"].astype(float)
            cost, error = cost - 0.3 * (1 - share), error + 1e-4 * (1 - share)
        if "tile" in options:
            cost = cost - (0.1 - 0.05 * np.abs(np.log2(options["tile"]["size"].astype(float) / 48)))
        cost = cost - 0.15 * ("fuse" in names) - 0.08 * ("layout" in names) - 0.4 * ("graph" in names)
        more_cost, loss = self._interactions(names)
        latency = 0.02 + 0.98 * calls / 50 * np.exp(cost + more_cost)
        return np.broadcast_arrays(latency, -10 * np.log10(error * math.exp(loss)), np.exp(memory))  # type: ignore[return-value]

    def _interactions(self, names: Sequence[str]) -> tuple[float, float]:
        """Return what passes do alone and in pairs beyond what is known of them: log cost and log loss."""
        found = [self.hidden[(name,)] for name in names]
        for left, right in combinations(names, 2):
            pair = (left, right) if (left, right) in ORDER_MATTERS else tuple(sorted((left, right)))
            found.append(self.hidden[pair])
        return sum(cost for cost, _ in found), sum(loss for _, loss in found)

    def evaluate(self, candidate: Candidate) -> Outcome:
        """Measure with noise that depends on the candidate alone."""
        if self.broken and self.broken in candidate.trace:
            return Failed("crash", "the worker died", "Segmentation fault")
        ratio, psnr, memory = self.effect(self.parse(candidate.trace).passes)
        rng = np.random.default_rng([self.seed, int(candidate.key[:8], 16)])
        return measured(ratio * math.exp(rng.normal(0, NOISE_LATENCY)), psnr + rng.normal(0, NOISE_PSNR), memory)

    def reference(self) -> float:
        """Return the hypervolume of the best programs there are: all that the grid holds are looked at."""
        best = np.empty((0, 3))
        for names in _orders(self.names):
            best = _nondominated(np.vstack([best, self._points(names)]))
        return hypervolume(best)

    def _points(self, names: Sequence[str]) -> Points:
        """Return the objectives of all programs of these passes in this order."""
        count, options = len(names), dict[str, dict[str, NDArray[np.generic]]]()
        for axis, name in enumerate(names):
            shape = [1] * count
            shape[axis] = -1
            grid = GRID[name][1]
            options[name] = {o: np.array([getattr(s, o) for s in INSTANCES[name]]).reshape(shape) for o in grid}
        latency, psnr, memory = (np.ravel(values) for values in self._effect(names, options))
        return _nondominated(np.stack([np.log(latency), -np.minimum(psnr, PSNR_CEILING_DB), np.log(memory)], axis=1))

    def _refused(self, steps: Steps, at: int) -> Refusal | None:
        name, before = steps[at].name, {s.name for s in steps[:at]}
        if name in before:
            return Refusal("there already", name, "once")
        for pair in EXCLUDED:
            if name in pair and before & (set(pair) - {name}):
                return Refusal("excluded", name, "exclusion")
        for earlier, later in BEFORE:
            if name == earlier and later in before:
                return Refusal(f"{earlier} after {later}", name, "order")
        if steps[at] not in _TEXTS:
            return Refusal("not among the values there are", name, "grid")
        return None


def measured(
    ratio: float, psnr: float = 60.0, memory: float = 1.0, *, spread: float = 0.03, tier: str = ""
) -> Measured:
    """Make an outcome: one second of baseline, 100 MiB of memory."""
    grade = tier or ("near" if psnr >= 35 else "traded" if psnr >= 25 else "rejected")
    return Measured(
        latency=Latency(ratio, ratio * math.exp(-spread), ratio * math.exp(spread), 5, (1.0,) * 5, (1 / ratio,) * 5),
        fidelity=Fidelity(psnr, psnr - 3, psnr - 6, 0.99, None, None, None, None, 8, (("a red circle", 1, psnr - 6),)),
        memory=Memory(int(memory * 2**20 * 100), 2**20 * 100),
        build_s=1.0,
        load_s=1.0,
        first_call_s=0.1,
        witnesses=(),
        tier=grade,
    )


class Experts:
    """Proposes what somebody who knows the field would try first on the synthetic problem."""

    name = "experts"
    texts = (
        'engine{backend="x" half=true}',
        'fewer{count=10 solver="two"},engine{backend="x" half=true}',
        'fewer{count=4 solver="two"},engine{backend="x" half=true}',
        'fuse,fewer{count=6 solver="three"},window{stop=0.6},engine{backend="x" half=true}',
        'cache{interval=3},fuse,engine{backend="x" half=true}',
        'engine{backend="x" half=true},bits{width="w8"}',
    )

    def __init__(self, problem: Synthetic) -> None:
        self.problem = problem
        self.calls = 0

    def propose(self, module: ModuleOp, history: Sequence[Trial], count: int) -> list[Trace]:
        """See `Proposer`."""
        self.calls += 1
        return [self.problem.parse(text) for text in self.texts][:count]


def _work(steps: Steps) -> dict[str, float]:
    """Return what can be read off a program, as `facts` does of a module: its steps, and its whole and shallow calls."""
    made = {step.name: step for step in steps}
    count = float(getattr(made.get("fewer"), "count", 50))
    full = count / getattr(made.get("cache"), "interval", 1)
    guided = count * getattr(made.get("window"), "stop", 1.0)
    calls = (full + SHALLOW * (count - full)) * (count + guided) / count
    return {"log steps": math.log1p(count), "log full": math.log1p(full), WORK: math.log(calls)}


def _orders(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield every legal set of passes, in each order that makes a difference."""
    for chosen in chain.from_iterable(combinations(names, count) for count in range(1, len(names) + 1)):
        if any(set(pair) <= set(chosen) for pair in EXCLUDED):
            continue
        matters = [pair for pair in ORDER_MATTERS if set(pair) <= set(chosen)]
        seen = set[tuple[bool, ...]]()
        for order in permutations(chosen) if matters else (_legal_order(chosen),):
            signs = tuple(order.index(a) < order.index(b) for a, b in matters)
            if signs not in seen and all(
                a not in order or b not in order or order.index(a) < order.index(b) for a, b in BEFORE
            ):
                seen.add(signs)
                yield order
            if len(seen) == 2 ** len(matters):
                break


def _legal_order(names: Sequence[str]) -> tuple[str, ...]:
    first = [earlier for earlier, _ in BEFORE]
    return tuple(sorted(names, key=lambda name: name not in first))


def _nondominated(points: Points) -> Points:
    inside = points[(points < REFERENCE).all(axis=1)]
    return inside[moocore.is_nondominated(inside)] if len(inside) else inside


def _chosen(values: NDArray[np.generic], meaning: Mapping[str, float]) -> Numbers:
    """Replace words by numbers."""
    found = np.zeros(values.shape)
    for word, number in meaning.items():
        found = np.where(values == word, number, found)
    return found
