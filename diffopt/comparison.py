"""An honest A/B of any two pipelines: lifted sources, artifacts, or scripts that hold a `load()`."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from diffopt.artifact import Artifact, is_artifact
from diffopt.bench.disk import scratch
from diffopt.bench.evaluate import Evaluator, Latency, Measured, Outcome, Program
from diffopt.bench.workload import DEFAULT_PROMPTS, Workload, load_prompts, split_prompts
from diffopt.events import Listener, Progress, Stage, silence
from diffopt.ir.errors import DiffoptError
from diffopt.remeasure import borrowed
from diffopt.session import model_directory, program, workload_for
from diffopt.sources import Source, lift, read_text

if TYPE_CHECKING:
    from diffopt.bench.fidelity import Scorer

PROMPTS = 8


@dataclass(frozen=True)
class Side:
    """One of the two: its program, the workload it brings (None for a script of its own), its engines, and its model."""

    program: Program
    workload: Workload | None
    engines: Path | None
    scorer: Scorer | None
    model: Path | None = None


@dataclass(frozen=True)
class Comparison:
    """What racing B against A gave; `outcome` is B's, its ratio is A's time divided by B's."""

    first: str
    second: str
    self_test: Latency
    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {
            "ok": isinstance(self.outcome, Measured),
            "a": self.first,
            "b": self.second,
            "a_against_itself": dataclasses.asdict(self.self_test),
            "outcome": self.outcome.to_json(),
        }


def compare_sources(
    first: str,
    second: str,
    *,
    prompts: str | None = None,
    pairs: int = 30,
    target: str = "cpu",
    size: tuple[int, int] | None = None,
    batch: int = 1,
    settings: Mapping[str, str] | None = None,
    seed: int = 0,
    listen: Listener = silence,
) -> Comparison:
    """Race B against A in interleaved pairs on the same fresh prompts and seeds, and compare their images.

    Args:
        first: A: a script, a model directory, an artifact, `demo:shapes`, or a `.py` file that defines `load()`.
        second: B, likewise.
        prompts: file with one prompt a line; by default the built-in model's or plain captions.
        pairs: the most timed pairs.
        size: height and width, where neither side tells.
        batch: prompts a call.
        settings: `--set` of both.

    Raises:
        DiffoptError: a side cannot be read, A does not run, or nothing tells the size.
    """
    sides = [side(text, settings or {}) for text in (first, second)]
    work = dataclasses.replace(workload_of(sides, prompts, size, seed), batch=batch)
    with scratch("diffopt-measure-") as folder:
        engines = borrowed(folder / "engines", *(found.engines for found in sides if found.engines is not None))
        with Evaluator(
            sides[0].program,
            work,
            work=folder / "work",
            engines=engines,
            device=target,
            scorer=next((found.scorer for found in sides if found.scorer is not None), None),
            seed=seed,
            progress=lambda stage, done, total: listen(Progress(stage, done, total)),
        ) as evaluator:
            listen(Stage("A against itself"))
            itself = evaluator.self_test(pairs=(8, 12))
            listen(Stage("B against A"))
            outcome = evaluator.evaluate(sides[1].program, pairs=(10, max(10, pairs)), any_image=True)
    return Comparison(first, second, itself, outcome)


def side(text: str, settings: Mapping[str, str]) -> Side:
    """Read one side; nothing of it is run.

    Raises:
        DiffoptError: it is neither a source nor an artifact nor a script with `load()`.
    """
    path = Path(text)
    if is_artifact(path):
        artifact = Artifact.open(path)
        asked = artifact.manifest["workload"]
        try:
            work = Workload(
                tuple(asked["search_prompts"]), tuple(asked["prompts"]), asked["seed"], asked["height"], asked["width"]
            )
        except (KeyError, TypeError) as error:
            what = f"the manifest's workload cannot be used ({type(error).__name__}: {error})"
            raise DiffoptError(what, where=text, hint="compile it again") from error
        return Side(Program(text, read_text(path / "pipeline.py")), work, path / "engines", None)
    if path.suffix == ".py" and path.is_file() and defines_load(read_text(path)):
        return Side(Program(text, read_text(path)), None, None, None)
    source = lift(text, settings)
    model = model_directory(source.module)
    scorer = source.builtin.scorer() if source.builtin is not None else None
    return Side(program(source.module, text), _few(source), None, scorer, model)


def defines_load(text: str) -> bool:
    """Say whether a script defines `load()` at its top, as an emitted pipeline does."""
    try:
        return any(isinstance(node, ast.FunctionDef) and node.name == "load" for node in ast.parse(text).body)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


def _few(source: Source) -> Workload:
    whole = workload_for(source, None, 0)
    return dataclasses.replace(whole, prompts=whole.prompts[:PROMPTS], heldout=whole.heldout[:PROMPTS])


def workload_of(sides: list[Side], prompts: str | None, size: tuple[int, int] | None, seed: int) -> Workload:
    """Return what sides are measured with: the user's prompts, or those that one of them brings.

    Raises:
        DiffoptError: the prompts cannot be used, or nothing tells the size.
    """
    brought = next((found.workload for found in sides if found.workload is not None), None)
    if brought is None and size is None:
        raise DiffoptError("nothing tells the size of the images", hint="give it with --size 512x512")
    height, width = size or (brought.height, brought.width) if brought is not None else size or (0, 0)
    if prompts is None and brought is not None:
        return dataclasses.replace(brought, height=height, width=width)
    given = load_prompts(Path(prompts)) if prompts is not None else DEFAULT_PROMPTS[: 2 * PROMPTS]
    search, heldout = split_prompts(given, seed=seed)
    return Workload(search, heldout, seed, height, width)


def comparison_lines(found: Comparison) -> list[str]:
    """Return a comparison as text for people."""
    itself = found.self_test
    lines = [f"A against itself   {itself.ratio:.3f} [{itself.lo:.3f}, {itself.hi:.3f}]  ({itself.pairs} pairs)"]
    outcome = found.outcome
    if not isinstance(outcome, Measured):
        return [*lines, f"B does not run     {outcome.kind}: {outcome.message}"]
    latency, fidelity = outcome.latency, outcome.fidelity
    word = "faster" if latency.lo > 1 else "slower" if latency.hi < 1 else "neither faster nor slower"
    pairs = f"{latency.pairs} pairs, {latency.stopped}"
    batch = outcome.environment.get("batch", 1)
    each = [int(str(batch)) / median(times) for times in (latency.baseline_s, latency.candidate_s)]
    structure = f"SSIM {fidelity.ssim_median:.3f}: {outcome.tier}"
    memory = outcome.memory
    lines += [
        f"A / B              {latency.ratio:.3f} [{latency.lo:.3f}, {latency.hi:.3f}]  ({pairs}): B is {word}",
        f"machine            {latency.state}, {latency.drift:.2f} of its usual time, load {latency.load_average:.1f}",
        f"images a second    {each[1]:.3g}, A {each[0]:.3g}, {batch} a call",
        f"images             {fidelity.psnr_median:.1f} dB median, {fidelity.psnr_worst:.1f} dB worst, {structure}",
        f"memory             {memory.peak_bytes / 1e9:.2f} GB, A {memory.baseline_peak_bytes / 1e9:.2f} GB",
        f"B before its calls {outcome.load_s:.1f} s load, {outcome.first_call_s:.2f} s the first call",
    ]
    if outcome.inactive:
        lines.append(f"did nothing        {', '.join(outcome.inactive)}")
    return lines
