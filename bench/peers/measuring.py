"""Measure peers and diffopt on one model: everything on the search's prompts, what leads on held-out ones, then face to face."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from diffopt.bench.environment import allowed, cpus_for
from diffopt.bench.evaluate import Evaluator, Failed, Outcome, Program, Split
from diffopt.bench.forkserver import PRELOAD as HERE_PRELOAD
from diffopt.bench.forkserver import ForkServer
from diffopt.bench.models import Builtin, describe
from diffopt.bench.peers.environments import python_of
from diffopt.bench.peers.levels import LEVELS, ROW, Level, fastest, reaches
from diffopt.bench.peers.peer import HERE, Peer
from diffopt.bench.workload import Workload
from diffopt.ir.description import build_module
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.errors import DiffoptError
from diffopt.passes.pipeline import Trace, applied

SEARCH_PROMPTS, HELDOUT_PROMPTS = 16, 64
SELF_PAIRS, SCREEN_PAIRS, FINAL_PAIRS, DIRECT_PAIRS = (6, 6), (4, 4), (5, 8), (16, 24)
CHANCES = 3
"""How many of a kind are tried on held-out prompts before it counts as not reaching a level."""
OURS = "diffopt"
KINDS = (OURS, "packaged", "by hand")
PRELOAD = ("numpy", "torch", "diffopt.bench.worker")
"""Of other environments: what a peer has to do before its imports, its own program does."""

FITTED = {
    "demo:shapes": (
        (
            'guidance-window{stop=0.0},fit-solver{timesteps="981,221" '
            'weights="0.597975479,-0.916221687;0.477667532,-0.533901334,0.224380065,-0.348784139"},'
            'export{backend="openvino" scope="pipeline" precision="bf16"}'
        ),
    ),
}
"""Traces beside those of a compilation: a solver fitted to guided runs for a denoiser that is asked without guidance,
`python -m diffopt.bench.fit solver demo:shapes --steps 2 --under guidance-window{stop=0}`."""


@dataclass(frozen=True)
class Entry:
    """A program that takes part."""

    who: str
    arm: str
    kind: str
    kept: bool
    environment: str
    text: str

    @property
    def name(self) -> str:
        """Its key in the results."""
        return f"{self.who}: {self.arm}"


class Servers:
    """Fork servers, one an environment, started when they are first asked for; a context manager."""

    def __init__(self, home: Path, work: Path, threads: int | None, environment: Mapping[str, str]) -> None:
        self._home, self._work = home, work
        self._seen = allowed(environment, home=Path(environment.get("HOME", "/")), threads=threads, offline=True)
        self._cpus = cpus_for(self._seen, os.sched_getaffinity(0), threads)
        self._stack = contextlib.ExitStack()
        self._live: dict[str, ForkServer] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def of(self, name: str) -> ForkServer:
        """Return the server of an environment.

        Raises:
            DiffoptError: the environment is not there, or cannot import what every program needs.
        """
        if name not in self._live:
            python = python_of(name, self._home)
            server = ForkServer(
                self._work / name, environment=self._seen, cpus=self._cpus, python=python,
                preload=HERE_PRELOAD if name == HERE else PRELOAD,
            )  # fmt: skip
            self._live[name] = self._stack.enter_context(server)
        return self._live[name]


def entries(model: Builtin, peers: tuple[Peer, ...], manifest: Path) -> list[Entry]:
    """Return what takes part on a model: the winners of a compilation's levels, and every arm of every peer.

    manifest: of a `diffopt compile` of the model.
    """
    module = build_module(describe(model))
    traces: dict[str, list[str]] = {}
    for level in json.loads(manifest.read_text())["levels"]:
        if level["trace"]:
            traces.setdefault(level["trace"], []).append(level["level"])
    for trace in FITTED.get(model.name, ()):
        traces.setdefault(trace, [])
    found = [
        Entry(OURS, trace, OURS, "steps kept" in levels, HERE, emit_pipeline(applied(Trace.parse(trace), module)))
        for trace, levels in traces.items()
    ]
    for peer in peers:
        if not peer.models or model.name in peer.models:
            found += [
                Entry(peer.name, arm, peer.kind, not options.get("steps"), peer.environment, peer.program(arm, call_of(model)))
                for arm, options in peer.arms.items()
            ]  # fmt: skip
    return found


def call_of(model: Builtin) -> dict[str, Any]:
    """Return the arguments of the baseline's call."""
    return {
        "num_inference_steps": model.steps, "guidance_scale": model.guidance,
        "height": model.height, "width": model.width, **model.arguments,
    }  # fmt: skip


class Measuring:
    """Measures entries on one model, each once, and keeps what came of it; a context manager.

    Args:
        results: of this model, changed in place: screen, finals, direct, self_test.
        keep: writes all results; called after each row.
        until: no measurement begins after this time of `clock`.
    """

    def __init__(
        self,
        model: Builtin,
        chosen: list[Entry],
        results: dict[str, Any],
        *,
        work: Path,
        servers: Servers,
        threads: int | None,
        keep: Callable[[], None],
        say: Callable[[str], None],
        until: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model, self._entries, self._results = model, {entry.name: entry for entry in chosen}, results
        self._servers, self._threads, self._keep, self._say = servers, threads, keep, say
        self._until, self._clock = until, clock
        self._work, self._engines = work, work / "engines"
        self._workload = Workload(
            tuple(model.prompts("search", SEARCH_PROMPTS)), tuple(model.prompts("heldout", HELDOUT_PROMPTS)),
            0, model.height, model.width,
        )  # fmt: skip
        self._evaluator = self._new(Program("plain diffusers", emit_pipeline(build_module(describe(model)))), "run")

    def __enter__(self) -> Self:
        self._evaluator.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._evaluator.__exit__()

    def screen(self) -> None:
        """Measure every entry on the search's prompts that has no row yet, or had another program."""
        for entry in self._entries.values():
            self._row("screen", entry, "search", SCREEN_PAIRS)

    def decide(self) -> None:
        """Measure on held-out prompts who leads at each level, then each leader face to face with diffopt's.

        The baseline is raced against itself at the end: what that interval covers, this machine cannot tell apart.
        """
        for level in reversed(LEVELS):
            ours = self._leader(level, OURS)
            for kind in KINDS[1:]:
                theirs = self._leader(level, kind)
                if ours is not None and theirs is not None:
                    self._direct(level, kind, ours, theirs)
        if "self_test" not in self._results and self._clock() <= self._until:
            self._results["self_test"] = dataclasses.asdict(self._evaluator.self_test(pairs=SELF_PAIRS))
            self._keep()

    def _leader(self, level: Level, kind: str) -> Entry | None:
        rows = [row for name, row in self._results.get("screen", {}).items() if name in self._entries]
        for row in fastest(rows, level, kind)[:CHANCES]:
            entry = self._entries[f"{row['who']}: {row['arm']}"]
            final = self._row("finals", entry, "heldout", FINAL_PAIRS)
            if final is not None and reaches(final, level):
                return entry
        return None

    def _row(self, part: str, entry: Entry, split: Split, pairs: tuple[int, int]) -> ROW | None:
        rows = self._results.setdefault(part, {})
        try:
            program = self._program(entry)
        except DiffoptError as error:
            outcome: Outcome = Failed("build", f"its environment cannot be used: {error}")
            known = rows.get(entry.name, {}).get("program") == ""
            rows[entry.name] = self._as_row(entry, "", outcome)
            if not known:
                self._told(part, entry, outcome)
            return None
        known = rows.get(entry.name)
        if known is not None and known["program"] == program.hash:
            return dict(known)
        if self._clock() > self._until:
            return None
        rest_s = 0.5 if split == "heldout" else 0.0
        outcome = self._evaluator.evaluate(program, split=split, pairs=pairs, any_image=True, rest_s=rest_s)
        rows[entry.name] = self._as_row(entry, program.hash, outcome)
        self._told(part, entry, outcome)
        return dict(rows[entry.name])

    def _direct(self, level: Level, kind: str, ours: Entry, theirs: Entry) -> None:
        """Race diffopt's program against another one, which stands where the baseline does elsewhere."""
        races = self._results.setdefault("direct", {}).setdefault(level.name, {})
        programs = [self._program(entry) for entry in (ours, theirs)]
        hashes = [program.hash for program in programs]
        if self._clock() > self._until or races.get(kind, {}).get("programs") == hashes:
            return
        with self._new(programs[1], f"direct-{hashes[1]}", few=True) as evaluator:
            outcome = evaluator.evaluate(programs[0], pairs=DIRECT_PAIRS, any_image=True, rest_s=1.0)
        races[kind] = {"ours": ours.name, "theirs": theirs.name, "programs": hashes, "outcome": outcome.to_json()}
        self._told(f"direct, {level.name}, against {theirs.name}", ours, outcome)

    def _new(self, baseline: Program, folder: str, *, few: bool = False) -> Evaluator:
        work = self._workload
        if few:
            work = dataclasses.replace(work, prompts=work.prompts[:4], heldout=work.heldout[:4])
        return Evaluator(
            baseline, work, work=self._work / folder, engines=self._engines, scorer=self._model.scorer(),
            model=str(self._model.directory), threads=self._threads, server=self._servers.of(HERE),
            reference_batch=1 if few else 8,  # engines of peers know one size of call
        )  # fmt: skip

    def _program(self, entry: Entry) -> Program:
        return Program(entry.name, entry.text, self._servers.of(entry.environment))

    def _as_row(self, entry: Entry, program: str, outcome: Outcome) -> dict[str, Any]:
        plain = {name: getattr(entry, name) for name in ("who", "arm", "kind", "kept", "environment")}
        return {**plain, "program": program, "outcome": outcome.to_json()}

    def _told(self, part: str, entry: Entry, outcome: Outcome) -> None:
        self._keep()
        if isinstance(outcome, Failed):
            self._say(f"{part}: {entry.name[:90]}: {outcome.kind}: {outcome.message.splitlines()[0][:160]}")
            return
        latency, fidelity = outcome.latency, outcome.fidelity
        self._say(
            f"{part}: {entry.name[:90]}: {latency.ratio:.3g}x [{latency.lo:.3g}, {latency.hi:.3g}], "
            f"{fidelity.psnr_median:.1f} dB, {outcome.tier}"
        )
