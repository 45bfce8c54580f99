"""A baseline of DiffBench as a problem for search methods: programs are edited scripts, measured once whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.outcome import Failed, Measured, Outcome, outcome_from_json
from diffopt.bench.suite.arms.rules import lifted, patched
from diffopt.bench.suite.choosing import Record, keeps_quality
from diffopt.bench.suite.families import FAMILIES
from diffopt.bench.suite.measured_gates import ADHERENCE
from diffopt.bench.suite.results import text_hash
from diffopt.bench.suite.task import QUALITY_LOSS
from diffopt.bench.suite.writing import plain_script
from diffopt.passes.base import DiffusionPass, Refusal, registry
from diffopt.search.goals import Constraints, Level
from diffopt.search.presets import Listed, RuleProposer, without_engines
from diffopt.search.records import Candidate, Proposer
from diffopt.search.space import Legal, PassSpace, Refused, Steps
from diffopt.search.study.problem import Aim

WORDS = (
    "reduce-steps", "cache-features", "merge-tokens", "guidance-window", "gate-cross-attention", "half-precision", "fuse-qkv",
)  # fmt: skip
"""The passes that come to what the words of the tasks offer: another sampler, fewer steps, DeepCache, ToMe, T-Gate, 16-bit
floats, fused projections."""

BOUND = Constraints(tier="traded")
"""The bound of quality as the engine knows it: see `told`."""

LEVEL = Level("within the bound", BOUND)


@dataclass(frozen=True)
class Baseline:
    """What a search is of: a model's pipeline with a sampler and a number of steps."""

    family: str
    sampler: str
    steps: int

    @property
    def script(self) -> str:
        """The plain script, with which every answer to its tasks is compared."""
        return plain_script(FAMILIES[self.family], sampler=self.sampler, steps=self.steps)

    def __str__(self) -> str:
        return f"{self.family} {self.sampler or 'own'} {self.steps}"


class WordsSpace(PassSpace):
    """The `Space` of what the words offer; any other pass is refused, whoever proposes it."""

    def __init__(self, module: ModuleOp) -> None:
        super().__init__(module, passes={name: registry()[name] for name in WORDS})

    def instances(self, name: str, before: Steps) -> Steps:
        """See `Space`."""
        return tuple(step for step in super().instances(name, before) if offered(step))

    def check(self, steps: Steps) -> Legal | Refused:
        """See `Space`."""
        for at, step in enumerate(steps):
            if not offered(step):
                return Refused(Refusal("it is not among what the tasks' words offer", step.name, "words"), at)
        return super().check(steps)


def offered(step: DiffusionPass) -> bool:
    """Tell whether the words of the tasks offer a pass; the 16-bit floats that they name are bfloat16."""
    return step.name in WORDS and getattr(step, "dtype", "bfloat16") == "bfloat16"


@dataclass(frozen=True)
class Asked:
    """A program that an arm had measured: its passes, and the hash of its script (of its reason, where none can be written)."""

    trace: str
    program: str


class BaselineProblem:
    """A `Searchable`: all that a method is told stands in one record a program, from the prompts that a search may see.

    Args:
        record: measures a script, or returns what the store has of it.
        whole: offer the whole catalogue, engines included, and not only what the words of the tasks offer.
    """

    def __init__(self, baseline: Baseline, record: Callable[[str, str], Record], *, whole: bool = False) -> None:
        self.baseline, self._record, self._whole = baseline, record, whole
        self._script = baseline.script
        self.module: ModuleOp = lifted(baseline.family, self._script)
        self.space: PassSpace = PassSpace(self.module) if whole else WordsSpace(self.module)
        self.vocabulary: Mapping[str, Steps] = {
            name: found for name in self.space.names if (found := self.space.instances(name, ()))
        }
        self.asked: dict[str, Asked] = {}
        self.programs: dict[str, str] = {}

    def evaluate(self, candidate: Candidate) -> Outcome:
        """See `Searchable`."""
        answer = patched(self.baseline.family, self._script, candidate.trace)
        if not answer.code:
            self.asked[candidate.key] = Asked(candidate.trace, "")
            return Failed("build", answer.refused)
        record = self._record(answer.code, candidate.trace)
        name = text_hash(answer.code)
        self.asked[candidate.key], self.programs[name] = Asked(candidate.trace, name), answer.code
        return told(record)

    def seeds(self) -> Sequence[Proposer]:
        """See `Searchable`."""
        return (RuleProposer(),) if self._whole else (Listed(without_engines(self.module)),)


def told(record: Record) -> Outcome:
    """Return the outcome that a method is told: its tier says whether the task's bound of quality is kept."""
    outcome = outcome_from_json(record["outcome"])
    if isinstance(outcome, Failed):
        return outcome
    base, made = (fmean(record["adherence"][side]) for side in ("baseline", "candidate"))
    fidelity = replace(outcome.fidelity, adherence=made, baseline_adherence=base)
    tier = outcome.tier
    if not keeps_quality(record):
        tier = "changed"
    elif tier == "changed":
        tier = "traded"
    return replace(outcome, tier=tier, fidelity=fidelity)


def _slowness(outcome: Measured) -> tuple[float, ...]:
    return (1 / outcome.latency.ratio,)


def _excess(outcome: Measured) -> float:
    made, base = outcome.fidelity.adherence or 0.0, outcome.fidelity.baseline_adherence or 1.0
    return max(1 - made / base - QUALITY_LOSS, ADHERENCE - made)


FASTEST = Aim(_slowness, (20.0,), _excess)
"""What the tasks ask for, as other libraries' methods take it: the least time within the bound of quality."""
