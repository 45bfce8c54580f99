"""The parts of one run: its folder, its workload, its programs, and the judge on held-out prompts."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffopt.artifact import is_artifact
from diffopt.bench.evaluate import Evaluator, Failed, Measured, Outcome, Program, Split
from diffopt.bench.tiers import TIERS
from diffopt.bench.workload import Workload, default_workload, load_prompts, split_prompts
from diffopt.events import Asked, Decided, Deciding, Listener, Told
from diffopt.ir.description import spans_of
from diffopt.ir.dialect import components
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import module_hash
from diffopt.ir.rewrite import RewriteFailed, Rewriter
from diffopt.ir.source_directory import hub_cache, snapshot
from diffopt.passes.pipeline import Trace, applied
from diffopt.search.budget import Budget
from diffopt.search.engine import Engine
from diffopt.search.executors.local import LocalExecutor
from diffopt.search.loop import search
from diffopt.search.records import Candidate, Trial
from diffopt.search.store import Store, in_use

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from diffopt.bench.features import FeatureNetwork
    from diffopt.bench.fidelity import Distances
    from diffopt.bench.models import Builtin
    from diffopt.sources import Source

SEARCH_PROMPTS, HELDOUT_PROMPTS = 16, 64
"""Prompts of a built-in model; at 64, "within 2 points" is one prompt, and "within 1" none."""


SEARCH_PAIRS, FINAL_PAIRS = (5, 8), (10, 16)
"""Fewest and most timed pairs of a candidate, and of what is reported."""

REST_S = 2.0
"""Rest between quarters of the final pairs, so that they do not all fall into one state of the machine."""

STORE = "store.sqlite"
RUN_FILES = frozenset({"work", "engines", "llm.jsonl", "passes", "hints.json", "planner.json", "knowledge.txt"})
"""What a run leaves in its folder beside its store; a folder that holds anything else is not deleted."""

REACH = 0.75
"""Share of the recorded speed-up that measuring again must reach; see `missed`."""


@dataclass(frozen=True)
class FixedProposer:
    """Proposes one given trace: what `--passes` asks for."""

    trace: Trace
    name: str = "user"

    def propose(self, module: ModuleOp, history: Sequence[Trial], count: int) -> list[Trace]:
        """Return the trace."""
        return [self.trace]


class Judge:
    """Measures traces apart from the search, each once in the life of a run; what it found is in the store.

    Programs that may be shipped are judged on the held-out prompts. Control arms, which nobody ships, are measured on the
    search's prompts with fewer pairs: stock torch.compile alone would take as long as all else.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        store: Store,
        module: ModuleOp,
        listen: Listener,
        *,
        split: Split = "heldout",
        run: str = "",
        rewriter: Rewriter | None = None,
    ) -> None:
        self._evaluator, self._store, self._module, self._listen = evaluator, store, module, listen
        self._rewriter = rewriter
        self._split: Split = split
        self._run = run or {"heldout": "heldout", "search": "controls"}[split]
        self._pairs = {"heldout": FINAL_PAIRS, "search": SEARCH_PAIRS}[split]
        store.open_run(self._run, {"module": module_hash(module)})

    def __call__(self, trace: str, name: str = "") -> Outcome:
        """Return the outcome of a trace, measured now or found in the store."""
        rewritten = applied(Trace.parse(trace), self._module)
        key = module_hash(rewritten)
        known = {trial.candidate.key: trial.outcome for trial in self._store.trials(self._run)}
        fresh = key not in known
        if fresh:
            waiting = [c for c in self._store.pending(self._run) if c.key == key]
            candidate = (
                waiting[0]
                if waiting
                else self._store.add_candidate(
                    self._run, trace=trace, key=key, origin=name or "level", facts={}, predicted=None
                )
            )
            self._listen(Deciding(name, trace))
            known[key] = self._evaluator.evaluate(
                self.program(trace),
                split=self._split,
                pairs=self._pairs,
                any_image=self._split == "search",
                rest_s=REST_S if self._split == "heldout" else 0.0,
            )
            self._store.tell(self._run, candidate.id, known[key])
        if fresh:
            self._listen(Decided(name, trace, known[key]))
        return known[key]

    def program(self, trace: str) -> Program:
        """Return the program a trace leads to."""
        return program(applied(Trace.parse(trace), self._module), trace or "baseline", self._rewriter)


def program(module: ModuleOp, name: str, rewriter: Rewriter | None = None) -> Program:
    """Emit a module for measuring."""
    return Program(name, emit_pipeline(module, rewriter))


def measure(evaluator: Evaluator, module: ModuleOp, trace: str, rewriter: Rewriter | None = None) -> Outcome:
    """Measure a trace as the search does; generated code that gives no program is that program's failure."""
    try:
        made = program(applied(Trace.parse(trace), module), trace, rewriter)
    except RewriteFailed as error:
        return Failed("build", str(error))
    return evaluator.evaluate(made, pairs=SEARCH_PAIRS)


def run_search(
    engine: Engine,
    evaluator: Evaluator,
    module: ModuleOp,
    budget: Budget,
    listen: Listener,
    rewriter: Rewriter | None = None,
) -> str:
    """Search until the budget is spent; return why it stopped."""

    def evaluate(candidate: Candidate) -> Outcome:
        listen(Asked(candidate))
        return measure(evaluator, module, candidate.trace, rewriter)

    return search(
        engine,
        LocalExecutor(evaluate),
        budget,
        on_trial=lambda trial: listen(Told(trial.candidate, trial.outcome)),
    )


def workload_for(source: Source, prompts: str | Path | None, seed: int) -> Workload:
    """Return the prompts and sizes a source is measured with: the user's, the built-in model's, or plain captions.

    Raises:
        DiffoptError: the prompt file cannot be used.
    """
    call = components(source.module)["pipeline"].values
    height, width = (value for value in (call["height"], call["width"]) if isinstance(value, int))
    if prompts is not None:
        search_for, heldout = split_prompts(load_prompts(Path(prompts)), seed=seed)
        return Workload(search_for, heldout, seed, height, width)
    if source.builtin is None:
        return default_workload(height=height, width=width, seed=seed)
    search_for = tuple(source.builtin.prompts("search", SEARCH_PROMPTS, seed))
    heldout = tuple(source.builtin.prompts("heldout", HELDOUT_PROMPTS, seed))
    return Workload(search_for, heldout, seed, height, width)


def network_for(builtin: Builtin | None) -> FeatureNetwork | None:
    """Return the feature network on this machine for a model that brings no scorer, or None."""
    from diffopt.bench.features import network_here

    return network_here(hub_cache()) if builtin is None else None


def distances_for(builtin: Builtin | None) -> Distances | None:
    """Return perceptual distances of images where this machine has them, for a model that brings no scorer; or None."""
    from diffopt.bench.perceptual import distances_here

    return distances_here() if builtin is None else None


def run_folder(out: Path, *, resume: bool, force: bool) -> Path:
    """Return the folder of the run beside the artifact, fresh or, with `resume`, as it was left.

    Raises:
        DiffoptError: something is in the way that the user did not say to replace, or there is nothing to resume.
    """
    if not out.name or out.name == "..":
        raise DiffoptError("a folder of its own is needed", where=str(out), hint="give it with -o")
    folder = out.with_name(f"{out.name}.run")
    if os.path.lexists(out) and not is_artifact(out):
        raise DiffoptError("already exists", where=str(out), hint="give another -o")
    if resume:
        if not (folder / STORE).is_file():
            raise DiffoptError("there is no run to resume", where=str(folder), hint="leave --resume out")
        return folder
    if out.exists() and not force:
        raise DiffoptError("already exists", where=str(out), hint="use --force to replace it")
    if os.path.lexists(folder):
        if not force:
            hint = "use --resume to go on with it, or --force to start again"
            raise DiffoptError("holds an earlier run", where=str(folder), hint=hint)
        if not _is_run(folder):
            raise DiffoptError("is no run of diffopt", where=str(folder), hint="move it away, or give another -o")
        if in_use(folder / STORE):
            raise DiffoptError("a run is going on there", where=str(folder), hint="wait for it, or give another -o")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise DiffoptError(f"cannot be made: {error.strerror}", where=str(folder), hint="use -o elsewhere") from None
    return folder


def _is_run(folder: Path) -> bool:
    """Say whether a folder holds a run and nothing else."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return all(path.name in RUN_FILES or path.name.startswith(STORE) for path in folder.iterdir())


def model_directory(module: ModuleOp) -> Path:
    """Return the directory of the model that a module names, in the hub's cache where it names a hub id.

    Raises:
        DiffoptError: the model is not on this machine; nothing is downloaded unasked.
    """
    model = str(components(module)["pipeline"].values.get("model", ""))
    found = Path(model) if Path(model).is_dir() else snapshot(model, hub_cache()) if model else None
    if found is None:
        place = spans_of(module).get("construct")
        where = f"{place.file}:{place.line}" if place is not None else model
        hint = "download it first (huggingface-cli download), or give --set model=DIRECTORY"
        raise DiffoptError(f"the model {model!r} is not on this machine", where=where, hint=hint)
    return found


def model_hash(directory: Path) -> str:
    """Return one hash over names and contents of all files of a model; empty where it is no directory."""
    if not directory.is_dir():
        return ""
    total = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        total.update(f"{file.relative_to(directory).as_posix()} {digest}\n".encode())
    return total.hexdigest()


def engines_of(outcome: Measured) -> tuple[str, ...]:
    """Return the engine folders that a measured program used, as its witness names them."""
    named = [str(w["detail"]).split() for w in outcome.witnesses if w["transform"] == "engine-files"]
    return tuple(dict.fromkeys(name for names in named for name in names))


def missed(recorded: Outcome, outcome: Outcome) -> str:
    """Say what an artifact measured again no longer keeps of what was recorded; empty where it keeps all.

    The tier must be as strong. The speed-up must reach three quarters of the recorded lower end: on shared machines the
    ratios of engines move by up to a quarter between fast and slow states, and a real loss (an engine that falls back) is
    far larger.
    """
    if not isinstance(outcome, Measured):
        return f"it does not run: {outcome.kind}: {outcome.message}"
    if not isinstance(recorded, Measured):
        return "the manifest records no measurement"
    if TIERS.index(outcome.tier) > TIERS.index(recorded.tier):
        return f"tier {outcome.tier}, recorded was {recorded.tier}"
    if outcome.latency.hi < REACH * recorded.latency.lo:
        return f"speed-up of at most {outcome.latency.hi:.2f}x, recorded was at least {recorded.latency.lo:.2f}x"
    return ""
