"""The programs a search may write: which passes there are, what a trace leads to, and where it is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.identity import module_hash
from diffopt.passes import rules
from diffopt.passes.base import DiffusionPass, Refusal, registry
from diffopt.passes.pipeline import Trace, run
from diffopt.search.cost_model import CostModel, calls_of, making_of
from diffopt.search.facts import WORK, facts

Steps: TypeAlias = tuple[DiffusionPass, ...]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Legal:
    """A trace that runs: the key of the program it leads to, and the numbers read from it."""

    key: str
    facts: Mapping[str, float] = field(compare=False)


@dataclass(frozen=True)
class Refused:
    """A trace that does not run: the first step refused, and why."""

    refusal: Refusal
    at: int


class Space(Protocol):
    """What the engine, its operators and its repair know of programs. Every method is pure."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the passes a trace may hold."""

    def instances(self, name: str, before: Steps) -> Steps:
        """Return the instances of a pass worth trying after the steps `before`; none where those are refused."""

    def check(self, steps: Steps) -> Legal | Refused:
        """Run the steps from the start; the empty trace is legal and leads to the baseline."""

    def parse(self, text: str) -> Trace:
        """Read a trace back from its text."""


def _for_device(device: str) -> dict[str, type[DiffusionPass]]:
    """Return the registered passes that can do something on a device such as `cuda:0`."""
    return {name: found for name, found in registry().items() if rules.unfit(found, device) is None}


class PassSpace:
    """The `Space` of a module and the registered passes.

    A pass reads the module alone, so what it does to a program is known by the program's identity, however that came about:
    each pass is run once on each program. `memory` programs are kept; of the others, how they came about.

    Args:
        device: what the programs are for; passes for other kinds of device are left out where none are given.
        keep_steps: refuse what changes the number of denoising steps.
        costs: what is known of costs here, from which the work of a program is predicted.
    """

    def __init__(
        self,
        module: ModuleOp,
        *,
        passes: Mapping[str, type[DiffusionPass]] | None = None,
        device: str = "cpu",
        keep_steps: bool = False,
        costs: CostModel | None = None,
        memory: int = 400,
    ) -> None:
        self._passes = _for_device(device) if passes is None else passes
        self._keep_steps, self._costs = keep_steps, costs
        self._memory = memory
        self._programs: dict[str, ModuleOp] = {}
        self._ways: dict[str, Steps] = {}  # what leads to a program, by its identity; of all, since it is short
        self._moves: dict[tuple[str, DiffusionPass], str | Refusal] = {}
        self._spaces: dict[tuple[str, str], Steps] = {}
        self._read: dict[str, Mapping[str, float]] = {}
        self._checked: dict[Steps, Legal | Refused] = {}
        self._module = module
        self._start = module_hash(module)
        self._ways[self._start] = ()
        self._baseline = facts(module)

    @property
    def names(self) -> tuple[str, ...]:
        """See `Space`."""
        return tuple(self._passes)

    def instances(self, name: str, before: Steps) -> Steps:
        """See `Space`."""
        key = self._after(before)
        if isinstance(key, Refusal):
            return ()
        found = self._spaces.get((name, key))
        if found is None:
            found = tuple(self._passes[name].space(self._program(key)))
            _keep(self._spaces, (name, key), found, 20 * self._memory)
        return found

    def check(self, steps: Steps) -> Legal | Refused:
        """See `Space`."""
        found = self._checked.get(steps)
        if found is None:
            found = self._check(steps)
            _keep(self._checked, steps, found, 20 * self._memory)
        return found

    def parse(self, text: str) -> Trace:
        """See `Space`."""
        return Trace.parse(text)

    def _check(self, steps: Steps) -> Legal | Refused:
        if steps:
            before = self.check(steps[:-1])
            if isinstance(before, Refused):
                return before
        key = self._after(steps)
        if isinstance(key, Refusal):
            return Refused(key, len(steps) - 1)
        read = self._facts(key)
        before_steps, now = self._baseline["steps"], read["steps"]
        if self._keep_steps and now != before_steps:
            reason = f"{now:g} steps instead of {before_steps:g}, and the steps are to be kept"
            return Refused(Refusal(reason, steps[-1].name, "keep-steps"), len(steps) - 1)
        return Legal(key, read)

    def _facts(self, key: str) -> Mapping[str, float]:
        """Return what a surrogate may learn from of a program."""
        found = self._read.get(key)
        if found is None:
            module = self._program(key)
            read = facts(module)
            # Indicators that the baseline has too say nothing of a change; some hold names and paths.
            changed = {name: value for name, value in read.items() if "=" not in name or name not in self._baseline}
            if self._costs is not None:
                changed[WORK] = self._predicted(module)
            found = {**changed, "steps_kept": float(read["steps"] == self._baseline["steps"])}
            _keep(self._read, key, found, 20 * self._memory)
        return found

    def _program(self, key: str) -> ModuleOp:
        """Return a program that was met: the one that is kept, or made again."""
        if key == self._start:
            return self._module
        found = self._programs.get(key)
        if found is None:
            made = run(Trace(self._ways[key]), self._module)
            assert isinstance(made, ModuleOp), f"what led to {key} is refused now"
            _keep(self._programs, key, made, self._memory)
            found = made
        return found

    def _predicted(self, module: ModuleOp) -> float:
        """Return the log of the seconds a program will take; where its parts are unknown, as if made like the baseline."""
        assert self._costs is not None
        calls = calls_of(module)
        makings = (making_of(module), making_of(self._module))
        known = [s for making in makings if (s := self._costs.predict(making, calls)) is not None]
        return math.log(known[0]) if known else math.log(max(calls.work(self._costs.shallow, self._costs.single), 1.0))

    def _after(self, steps: Steps) -> str | Refusal:
        """Return the identity of the program that steps lead to, or why one of them is refused."""
        if not steps:
            return self._start
        before = self._after(steps[:-1])
        if isinstance(before, Refusal):
            return before
        found = self._moves.get((before, steps[-1]))
        if found is None:
            module = run(Trace(steps[-1:]), self._program(before), known_good=before != self._start)
            found = module if isinstance(module, Refusal) else self._met(module, (*self._ways[before], steps[-1]))
            _keep(self._moves, (before, steps[-1]), found, 50 * self._memory)
        return found

    def _met(self, module: ModuleOp, way: Steps) -> str:
        key = module_hash(module)
        if key not in self._ways:
            self._ways[key] = way
            _keep(self._programs, key, module, self._memory)
        return key


def tidy(steps: Steps, space: Space) -> Steps:
    """Leave out steps that change nothing: without each of them the program is the same."""
    legal = space.check(steps)
    if isinstance(legal, Refused):
        return steps
    for at in reversed(range(len(steps))):
        shorter = steps[:at] + steps[at + 1 :]
        if space.check(shorter) == legal:
            steps = shorter
    return steps


def _keep(kept: dict[_Key, _Value], key: _Key, value: _Value, most: int) -> None:
    if len(kept) >= most:
        kept.pop(next(iter(kept)))
    kept[key] = value
