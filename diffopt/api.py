"""The library's front door, and the one place that wires the rooms together."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffopt
from diffopt.artifact import Artifact
from diffopt.events import Assumed, Listener, Missed, Progress, Stage, silence
from diffopt.ir.description import assumptions_of
from diffopt.ir.errors import DiffoptError
from diffopt.sources import Source, lift

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from diffopt.agents import AgentFor
    from diffopt.bench.evaluate import Outcome
    from diffopt.cluster import Cluster
    from diffopt.envelope import Envelope, Point
    from diffopt.search.goals import Constraints

__all__ = ["Goal", "Source", "Verdict", "compile", "lift", "verify"]


@dataclass(frozen=True)
class Goal:
    """What the user asks for.

    Args:
        tier: weakest tier that will do: `exact`, `near` or `traded`.
        min_fidelity: least median paired PSNR in dB.
        max_latency: most milliseconds a call.
        max_memory: most GB of peak memory.
        keep_steps: leave the number of steps alone.
        minimize: what decides between programs that keep all that: `latency` or `memory`.
    """

    tier: str = "near"
    min_fidelity: float | None = None
    max_latency: float | None = None
    max_memory: float | None = None
    keep_steps: bool = False
    minimize: str = "latency"

    def constraints(self) -> Constraints:
        """Return the goal in the search's units.

        Raises:
            DiffoptError: a bound that is no positive number.
        """
        from diffopt.search.goals import Constraints

        for name in ("min_fidelity", "max_latency", "max_memory"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e9:
                raise DiffoptError(f"must be a positive number, not {value:g}", where=f"--{name.replace('_', '-')}")

        return Constraints(
            tier=self.tier,
            min_psnr=self.min_fidelity,
            max_latency_s=None if self.max_latency is None else self.max_latency / 1e3,
            max_memory_bytes=None if self.max_memory is None else int(self.max_memory * 1e9),
            keep_steps=self.keep_steps,
            minimize=self.minimize,
        )


def compile(
    source: str | Path,
    out: str | Path,
    *,
    goal: Goal | None = None,
    target: str = "cpu",
    budget: str = "10m",
    early_stop: bool = True,
    prompts: str | Path | None = None,
    passes: str | None = None,
    agent: AgentFor | None = None,
    cluster: Cluster | None = None,
    envelope: Envelope | None = None,
    engine_cache: int | None = None,
    resume: bool = False,
    force: bool = False,
    seed: int = 0,
    controls: bool = True,
    settings: Mapping[str, str] | None = None,
    command: str = "",
    listen: Listener = silence,
) -> Artifact | None:
    """Search for the fastest pipeline that meets the goal, prove it on held-out prompts, and write the artifact.

    The run's store, engines and reference images stay in `OUT.run`; with `resume` a stopped run goes on from there.

    Args:
        source: see `lift`.
        out: folder of the artifact.
        budget: of the search: a time (`90s`, `10m`) or a number of measured candidates (`40`).
        early_stop: end the search before its budget is spent, where gains are under the measured noise.
        prompts: file with one prompt a line; half of them are held out.
        engine_cache: most bytes of the run's engines, of which the least used go first; None keeps all.
        passes: measure this one trace instead of searching.
        agent: makes what proposes, searches and rewrites; by default the rules propose and the engine searches.
        cluster: measures the search's candidates; by default this process does, which in any case judges in the end.
        envelope: sizes and batches that engines are built for and the winner must meet the goal at, beside the own.
        controls: measure the control arms too (fewer steps at equal time, stock torch.compile), and what the winner's
            passes buy one after the other.

    Returns:
        The artifact, or `None` where no candidate met the goal on held-out prompts (the run's store tells why).

    Raises:
        DiffoptError: bad input; nothing is left half written.
    """
    from diffopt.agents import Agent
    from diffopt.backends.engine_cache import set_limit
    from diffopt.bench.device import check_target, versions
    from diffopt.bench.evaluate import Evaluator, Measured, Thresholds
    from diffopt.bench.floor import floor_program
    from diffopt.cluster import settings_for
    from diffopt.envelope import Envelope, choose_everywhere, envelope_json, measured_at, workload_at
    from diffopt.finals import bought, closest, control_traces, decide_levels, fallback, prefixes
    from diffopt.ir.dialect import steps_of
    from diffopt.ir.emit_pipeline import emit
    from diffopt.ir.identity import print_module
    from diffopt.packing import explained, level_json, pack, recorded_versions, trial_json
    from diffopt.passes import rules
    from diffopt.passes.pipeline import Trace, applied
    from diffopt.search.budget import Budget
    from diffopt.search.engine import Engine
    from diffopt.search.presets import RuleProposer
    from diffopt.search.space import PassSpace
    from diffopt.search.store import Store
    from diffopt.session import (
        STORE,
        FixedProposer,
        Judge,
        distances_for,
        engines_of,
        model_directory,
        model_hash,
        network_for,
        program,
        run_folder,
        run_search,
        workload_for,
    )

    started = time.monotonic()
    goal = goal or Goal()
    constraints = goal.constraints()
    check_target(target)
    only = None if passes is None else FixedProposer(Trace.parse(passes))
    if only is not None and not len(only.trace):
        raise DiffoptError("no pass is named", where="--passes", hint="leave it out to search")
    if only is not None and cluster is not None:
        raise DiffoptError("one trace is no search to spread", where="--executor ray", hint="leave it out")
    for one in only.trace if only is not None else ():
        if (unfit := rules.unfit(one, target)) is not None:
            raise DiffoptError(unfit.reason, where=one.name, hint="leave it out, or name another --target")
    limit = dataclasses.replace(Budget.parse(budget), early=early_stop) if only is None else Budget(candidates=1)
    envelope = envelope or Envelope()
    lifted = lift(source, settings)
    if envelope != Envelope():
        lifted = dataclasses.replace(lifted, module=envelope.on(lifted.module))
    for assumption in assumptions_of(lifted.module):
        listen(Assumed(str(assumption)))
    if only is not None:
        changed = applied(only.trace, lifted.module)
        if goal.keep_steps and steps_of(changed) != steps_of(lifted.module):
            raise DiffoptError("these passes change the steps, which are to be kept", where="--passes")
    model = model_directory(lifted.module)
    work = workload_for(lifted, prompts, seed)
    place = Path(out)
    folder = run_folder(place, resume=resume, force=force)
    weights = model_hash(model)
    thresholds = Thresholds()
    network = network_for(lifted.builtin)
    acting = agent(folder, lifted.module) if agent is not None else Agent([RuleProposer(target)])
    if cluster is not None and acting.searching not in (None, run_search):
        hint = "leave it out: this planner measures one program after the other"
        raise DiffoptError("this search cannot be spread", where="--executor ray", hint=hint)
    found = [only] if only is not None else acting.proposers
    plan: dict[str, Any] = {
        "target": target,
        "model": {"path": str(model), "hash": weights},
        "libraries": versions(),
        "thresholds": thresholds.to_json(),
        "features": "scorer" if lifted.builtin is not None else network.name if network is not None else "",
        "workload": {
            "search": len(work.prompts),
            "heldout": len(work.heldout),
            "seed": seed,
            "height": work.height,
            "width": work.width,
            "search_prompts": list(work.prompts),
            "prompts": list(work.heldout),
        },
    }
    marks = [time.monotonic()]
    scorer = lifted.builtin.scorer() if lifted.builtin is not None else None
    shared: dict[str, Any] = {
        "engines": folder / "engines",
        "hidden": (folder,),
        "device": target,
        "network": network,
        "perceptual": distances_for(lifted.builtin),
        "thresholds": thresholds,
        "weights": weights,
        "seed": seed,
        "progress": lambda stage, done, total: listen(Progress(stage, done, total)),
    }
    set_limit(folder / "engines", engine_cache)
    listen(Stage("loading the pipeline"))
    with (
        Store(folder / STORE) as store,
        Evaluator(
            program(lifted.module, "baseline"),
            work,
            work=folder / "work",
            scorer=scorer,
            **shared,
        ) as evaluator,
    ):
        engine = Engine(
            lifted.module,
            store,
            run_id="search",
            seed=seed,
            proposers=found,
            constraints=constraints,
            space=acting.steer(PassSpace(lifted.module, device=target, keep_steps=constraints.keep_steps)),
            manifest=plan,
        )
        listen(Stage("measuring the baseline, and the baseline against itself"))
        self_test = evaluator.self_test(pairs=(8, 10))
        floor = None
        if controls:
            listen(Stage("measuring the floor: the pipeline around a denoiser that computes nothing"))
            floor = evaluator.evaluate(floor_program(evaluator.baseline), pairs=(5, 5), any_image=True)
        marks.append(time.monotonic())
        listen(Stage(f"searching for {limit}"))
        searching = run_search if only is not None or acting.searching is None else acting.searching
        if cluster is not None:
            builtin = lifted.name if lifted.builtin is not None else ""
            told = settings_for(
                evaluator, target=target, builtin=builtin, model=model, weights=weights, folder=folder, seed=seed
            )
            searching = cluster.searching(told)
        reason = searching(engine, evaluator, lifted.module, limit, listen, acting.rewriter)
        acting.finish(engine.trials())
        marks.append(time.monotonic())
        listen(Stage(f"stopped: {reason}; deciding on held-out prompts"))
        judge = Judge(evaluator, store, lifted.module, listen, rewriter=acting.rewriter)
        finals = decide_levels(engine.trials(), constraints, judge)
        points = envelope.points(lifted.module) if envelope != Envelope() else ()

        def evaluator_at(point: Point, there: ModuleOp) -> Evaluator:
            sized = (point.height, point.width) == (work.height, work.width)
            place = folder / "work" / f"{point.width}x{point.height}x{point.batch}"
            return Evaluator(
                program(there, "baseline"),
                workload_at(work, point),
                work=place,
                scorer=scorer if sized else None,
                **shared,
            )

        def everywhere(trace: str) -> dict[Point, Outcome]:
            return measured_at(points, trace, evaluator_at, store, lifted.module, listen, acting.rewriter)

        chosen, at_points = choose_everywhere(finals, constraints, everywhere, listen)
        if chosen is None and only is None:
            listen(Stage("nothing met the goal on held-out prompts; trying what changes least"))
            safe = fallback(lifted.module, constraints, judge, target)
            chosen, at_points = choose_everywhere([safe] if safe else [], constraints, everywhere, listen)
        measured = chosen.outcome if chosen is not None else None
        control = Judge(evaluator, store, lifted.module, listen, split="search", rewriter=acting.rewriter)
        if controls and isinstance(measured, Measured):
            listen(Stage("measuring the control arms, and what each pass buys"))
        arms = (
            control_traces(lifted.module, measured.latency.ratio) if controls and isinstance(measured, Measured) else {}
        )
        judged = [{"name": name, "trace": t, "outcome": control(t, name).to_json()} for name, t in arms.items()]
        marks.append(time.monotonic())
        trials = engine.trials()
        if chosen is None or chosen.candidate is None or not isinstance(measured, Measured):
            for candidate, outcome, reasons in closest(finals, trials, constraints):
                listen(Missed(candidate.trace, outcome, reasons))
            return None
        trace = Trace.parse(chosen.candidate.trace)
        so_far = {len(trace): bought(measured)}
        for prefix in prefixes(trace, lifted.module) if controls else ():
            so_far[len(prefix)] = bought(control(str(prefix), "without what follows"))
        images = evaluator.images_of(judge.program(chosen.candidate.trace))
        # The engines were built during the search; loading them again for the final measurement took no building.
        built = [t.outcome for t in trials if t.candidate.key == chosen.candidate.key]
        build_s = max((o.build_s for o in (*built, measured) if isinstance(o, Measured)), default=measured.build_s)
        measured = dataclasses.replace(measured, build_s=build_s)
    if model_hash(model) != weights:
        raise DiffoptError(
            "the model's files changed during the run", where=str(model), hint="start again with --force"
        )
    listen(Stage("writing the artifact"))
    winner = applied(trace, lifted.module)
    manifest = {
        "diffopt": diffopt.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "source": {"kind": lifted.kind, "path": lifted.name},
        "versions": recorded_versions(emit(winner, acting.rewriter).requirements),
        "device": measured.environment,
        "goal": dataclasses.asdict(goal),
        **plan,
        "self_test": dataclasses.asdict(self_test),
        "floor": floor.to_json() if floor is not None else None,
        "baseline_ir": print_module(lifted.module),
        "ir": print_module(winner),
        "trace": chosen.candidate.trace,
        "key": chosen.candidate.key,
        "tier": measured.tier,
        "result": measured.to_json(),
        **({"envelope": envelope_json(at_points)} if points else {}),
        "levels": [level_json(final) for final in finals],
        "controls": judged,
        "trials": [trial_json(trial) for trial in trials],
        "steps": explained(trace, so_far),
        "engines": list(engines_of(measured)),
        "agent": acting.report(),
        "seconds": {
            name: end - start
            for name, (start, end) in zip(("baseline", "search", "final"), pairwise(marks), strict=True)
        }
        | {"total": time.monotonic() - started},
    }
    return pack(place, folder, manifest, winner, lifted, images, engines_of(measured), acting.rewriter)


@dataclass(frozen=True)
class Verdict:
    """What measuring an artifact again gave.

    Args:
        ok: it ran, keeps its tier, and its speed-up interval reaches the recorded one.
        reason: what is missing; empty when `ok`.
    """

    ok: bool
    reason: str
    outcome: Outcome
    recorded: Outcome
    artifact: Artifact


def verify(path: str | Path, *, model: str | Path | None = None, listen: Listener = silence) -> Verdict:
    """Measure an artifact again, here, on its held-out prompts, and compare with what its manifest says.

    Raises:
        DiffoptError: no artifact, made for other versions, or its model cannot be found.
    """
    from diffopt.remeasure import bench_of
    from diffopt.session import missed

    with bench_of(path, model=model, listen=listen) as bench:
        listen(Stage("measuring the artifact on its held-out prompts"))
        outcome = bench.evaluator.evaluate(bench.shipped, split="heldout")
    reason = missed(bench.recorded, outcome)
    return Verdict(not reason, reason, outcome, bench.recorded, bench.artifact)
