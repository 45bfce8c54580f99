"""Tell the model what was measured: the front with its intervals, the rest in short, the failures with their reason."""

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

from diffopt.bench.outcome import Failed, Measured, Outcome
from diffopt.llm.answer import one_line

_MOST = 12
_LOG = 400


class Candidate(Protocol):
    """What this room reads of `search.Candidate`."""

    @property
    def trace(self) -> str:
        """The passes as text."""

    @property
    def key(self) -> str:
        """Identity of the program."""


class Trial(Protocol):
    """What this room reads of `search.Trial`."""

    @property
    def candidate(self) -> Candidate:
        """What was measured."""

    @property
    def outcome(self) -> Outcome:
        """What came of it."""


def history_text(history: Sequence[Trial]) -> str:
    """Print the trials for a prompt: the front, the best of the others, the last failures."""
    measured = [(trial.candidate.trace, trial.outcome) for trial in history if isinstance(trial.outcome, Measured)]
    failed = [(trial.candidate.trace, trial.outcome) for trial in history if isinstance(trial.outcome, Failed)]
    measured.sort(key=lambda pair: -pair[1].latency.ratio)
    front = [pair for pair in measured if not any(_dominates(other, pair[1]) for _, other in measured)]
    others = [pair for pair in measured if pair not in front]
    parts = [
        _part("Front (speed up, PSNR up)", [_measured(*pair) for pair in front[:_MOST]], len(front)),
        _part("Beaten by the front", [_measured(*pair) for pair in others[:_MOST]], len(others)),
        _part("Failed", [_failed(*pair) for pair in failed[-_MOST:]], len(failed)),
    ]
    return "\n".join(part for part in parts if part) or "nothing yet"


def _part(title: str, lines: Iterable[str], count: int) -> str:
    body = "\n".join(f"- {line}" for line in lines)
    return f"{title}, {count}:\n{body}" if body else ""


def _dominates(one: Measured, other: Measured) -> bool:
    mine, theirs = ((m.latency.ratio, _psnr(m)) for m in (one, other))
    return mine != theirs and mine[0] >= theirs[0] and mine[1] >= theirs[1]


def _psnr(outcome: Measured) -> float:
    psnr = outcome.fidelity.psnr_median
    return -math.inf if math.isnan(psnr) else psnr


def _measured(trace: str, outcome: Measured) -> str:
    latency, fidelity, memory = outcome.latency, outcome.fidelity, outcome.memory
    said = [
        one_line(trace),
        f"{latency.ratio:.2f}x [{latency.lo:.2f}, {latency.hi:.2f}]",
        f"PSNR median {fidelity.psnr_median:.1f} p10 {fidelity.psnr_p10:.1f} worst {fidelity.psnr_worst:.1f} dB",
        f"tier {outcome.tier}",
    ]
    if fidelity.prompt_accuracy is not None and fidelity.baseline_prompt_accuracy is not None:
        points = 100 * (fidelity.prompt_accuracy - fidelity.baseline_prompt_accuracy)
        said.append(f"prompt accuracy {points:+.1f} points")
    if memory.baseline_peak_bytes:
        said.append(f"memory {memory.peak_bytes / memory.baseline_peak_bytes:.2f} of the baseline's")
    said += [one_line(f"{w.get('transform')}: {w.get('detail')}", 120) for w in outcome.witnesses]
    said += [f"{name} took no effect" for name in outcome.inactive]
    return " | ".join(said)


def _failed(trace: str, outcome: Failed) -> str:
    log = outcome.log.strip()[-_LOG:]
    tail = f" | log ends: {one_line(log, _LOG)}" if log else ""
    return f"{one_line(trace)} | {one_line(outcome.kind)}: {one_line(outcome.message)}{tail}"
