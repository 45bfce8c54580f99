"""What each pass of an artifact bought here: parts of its trace measured, and their effects on time and images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffopt.attribution import Attribution, Floats, Subset, attribute, orders, subsets
from diffopt.bench.evaluate import Evaluator, Measured, Outcome
from diffopt.events import Listener, Stage, silence
from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace, run
from diffopt.session import program

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

DRAWS = 1000
GREY = 255.0


@dataclass(frozen=True)
class Effects:
    """What each pass bought.

    Args:
        passes: in the order of the trace.
        latency: effects on the logarithm of the speed-up: e to that power is a factor, and factors multiply.
        images: effects on the mean distance to the baseline's images, root mean square in grey levels of 255.
        programs: how many were measured; dropped: subsets that no program can be made of as they are, and the passes
            left out of them for that.
        recorded: interval of the speed-up in the manifest.
    """

    passes: tuple[str, ...]
    latency: Attribution
    images: Attribution
    programs: int
    dropped: tuple[tuple[str, str], ...]
    recorded: tuple[float, float] | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)


def effects_of(
    evaluator: Evaluator,
    module: ModuleOp,
    trace: Trace,
    *,
    pairs: tuple[int, int] = (8, 16),
    seed: int = 0,
    recorded: tuple[float, float] | None = None,
    listen: Listener = silence,
) -> Effects | str:
    """Measure the parts of a trace and return what each pass bought; or why that cannot be said.

    A part that cannot be made (a pass needs another one) counts as what is left of it without the passes that refuse.
    """
    from diffopt.display import describe, short

    count, rng = len(trace), np.random.default_rng(seed)
    chosen = orders(count, rng=rng)
    known: dict[str, Outcome] = {}
    dropped: dict[str, str] = {}
    outcomes: dict[Subset, Outcome | None] = {}
    for part in subsets(count, chosen):
        wanted, left = _possible(trace, sorted(part), module)
        if left:
            dropped[_names(trace, part)] = _names(trace, left)
        text = str(wanted)
        if text and text not in known:
            known[text] = evaluator.evaluate(program(_run(wanted, module), text), pairs=pairs, any_image=True)
            listen(Stage(f"{describe(known[text])}  {short(text)}"))
        outcomes[part] = known.get(text)
        found = outcomes[part]
        if found is not None and not isinstance(found, Measured):
            return f"{short(text)} does not run: {found.kind}: {found.message}"
    measured = {part: found for part, found in outcomes.items() if isinstance(found, Measured) or found is None}
    latency = _attributed(count, chosen, measured, _log_ratios, rng, np.median)
    distance = _attributed(count, chosen, measured, _distances, rng, np.mean)
    names = tuple(str(one.spec(include_default=True)) for one in trace)
    return Effects(names, latency, distance, len(known), tuple(dropped.items()), recorded)


def _attributed(
    count: int,
    chosen: tuple[tuple[int, ...], ...],
    measured: Mapping[Subset, Measured | None],
    samples: Callable[[Measured], Floats],
    rng: np.random.Generator,
    of: Callable[..., Any],
) -> Attribution:
    """Attribute a statistic of each part's samples; one program's draws are the same wherever it stands for a part."""
    drawn: dict[int, Floats] = {}
    values: dict[Subset, float] = {}
    draws: dict[Subset, Floats] = {}
    for part, outcome in measured.items():
        found = np.zeros(1) if outcome is None else samples(outcome)
        if id(outcome) not in drawn:
            drawn[id(outcome)] = of(found[rng.integers(len(found), size=(DRAWS, len(found)))], axis=1)
        values[part], draws[part] = float(of(found)), drawn[id(outcome)]
    return attribute(count, chosen, values, draws)


def _log_ratios(outcome: Measured) -> Floats:
    return np.asarray(np.log(np.asarray(outcome.latency.baseline_s) / np.asarray(outcome.latency.candidate_s)))


def _distances(outcome: Measured) -> Floats:
    return np.asarray(GREY * 10 ** (-np.asarray(outcome.fidelity.psnr) / 20))


def _possible(trace: Trace, part: list[int], module: ModuleOp) -> tuple[Trace, list[int]]:
    """Return a part without the passes that refuse where they stand, and those."""
    kept: list[int] = []
    left: list[int] = []
    for index in part:
        tried = Trace(tuple(trace.passes[i] for i in [*kept, index]))
        (left if isinstance(run(tried, module), Refusal) else kept).append(index)
    return Trace(tuple(trace.passes[i] for i in kept)), left


def _run(trace: Trace, module: ModuleOp) -> ModuleOp:
    found = run(trace, module)
    assert not isinstance(found, Refusal)
    return found


def _names(trace: Trace, part: Subset | list[int]) -> str:
    return ",".join(trace.passes[index].name for index in sorted(part))


def effects_lines(found: Effects) -> list[str]:
    """Return effects as text for people."""
    from diffopt.display import short

    lines = ["what each pass bought, on average over orders [95 %] (and when it alone is left out):"]
    for name, time, image in zip(found.passes, found.latency.effects, found.images.effects, strict=True):
        lo, hi = np.exp(time.interval)
        without_lo, without_hi = np.exp(time.left_out_interval)
        speed = f"{np.exp(time.shapley):.3f}x [{lo:.3f}, {hi:.3f}] ({np.exp(time.left_out):.3f}x"
        speed += f" [{without_lo:.3f}, {without_hi:.3f}])"
        error = f"{image.shapley:+.2f} [{image.interval[0]:+.2f}, {image.interval[1]:+.2f}]"
        lines += [short(name), f"    {speed}   {error} grey levels ({image.left_out:+.2f})"]
    product, total = float(np.exp(sum(e.shapley for e in found.latency.effects))), float(np.exp(found.latency.total))
    lo, hi = np.exp(found.latency.total_interval)
    lines.append(f"together {product:.3f}x; measured {total:.3f}x [{lo:.3f}, {hi:.3f}], {found.programs} programs")
    if found.recorded is not None:
        lines.append(f"recorded {found.recorded[0]:.3f}x to {found.recorded[1]:.3f}x")
    lines += [f"{part} cannot be made as it is: without {left}" for part, left in found.dropped]
    return lines


def effects_of_artifact(
    path: str | Path, *, model: str | Path | None = None, prompts: int = 6, listen: Listener = silence
) -> Effects | str:
    """Measure an artifact's parts here, on some of the search's prompts.

    Raises:
        DiffoptError: no artifact, or one that cannot be measured here.
    """
    from diffopt.remeasure import bench_of

    with bench_of(path, model=model, prompts=prompts, build=True, listen=listen) as bench:
        was = bench.recorded.latency if isinstance(bench.recorded, Measured) else None
        recorded = (was.lo, was.hi) if was is not None else None
        return effects_of(bench.evaluator, bench.module, bench.trace, recorded=recorded, listen=listen)
