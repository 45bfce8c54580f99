"""A search whose candidates are measured on a Ray cluster: what its supervisors are told, and what they measure with."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.events import Asked, Listener, Stage, Told
from diffopt.ir.errors import DiffoptError
from diffopt.search.executors.ray import OPTION

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from diffopt.bench.evaluate import Evaluator, Outcome
    from diffopt.ir.description import JSON
    from diffopt.ir.rewrite import Rewriter
    from diffopt.search.budget import Budget
    from diffopt.search.engine import Engine
    from diffopt.search.records import Candidate

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Ray sets these for its workers; what is measured there sees what it would see here."""


@dataclass(frozen=True)
class Cluster:
    """Supervisors on an existing Ray cluster, or on one that is started here.

    Args:
        address: of an existing cluster, such as `host:6379`, or `auto`; None starts one for this run.
        workers: supervisors; those of one machine and device measure in turn.

    Raises:
        DiffoptError: no supervisors are asked for, or Ray is not installed.
    """

    address: str | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise DiffoptError("must be at least 1", where="--workers")
        if importlib.util.find_spec("ray") is None:
            raise DiffoptError("Ray is not installed", where=OPTION, hint="pip install 'diffopt[ray]'")

    def searching(self, settings: Mapping[str, JSON]) -> Callable[..., str]:
        """Return what searches as `session.run_search` does, with the candidates measured by supervisors."""

        def search_there(
            engine: Engine, evaluator: Evaluator, module: ModuleOp, budget: Budget, listen: Listener,
            rewriter: Rewriter | None = None,
        ) -> str:  # fmt: skip
            from diffopt.search.executors.ray import RayExecutor
            from diffopt.search.loop import search

            def asked(candidate: Candidate) -> dict[str, JSON]:
                listen(Asked(candidate))
                return payload(candidate, module, rewriter)

            target = str(settings["target"])
            with RayExecutor(
                "diffopt.cluster:measure",
                settings,
                asked,
                workers=self.workers,
                address=self.address,
                devices=(target,),
                gpus=0 if target == "cpu" else 1,
            ) as executor:
                listen(Stage(f"measuring on {', '.join(executor.hosts())}"))
                return search(
                    engine, executor, budget, on_trial=lambda trial: listen(Told(trial.candidate, trial.outcome))
                )

        return search_there


def payload(candidate: Candidate, module: ModuleOp, rewriter: Rewriter | None = None) -> dict[str, JSON]:
    """Return a candidate as a supervisor is told it: its emitted program, or why there is none."""
    from diffopt.bench.outcome import Failed
    from diffopt.ir.rewrite import RewriteFailed
    from diffopt.passes.pipeline import Trace, applied
    from diffopt.session import program

    try:
        made = program(applied(Trace.parse(candidate.trace), module), candidate.trace, rewriter)
    except RewriteFailed as error:
        return {"failed": Failed("build", str(error)).to_json()}  # type: ignore[dict-item]
    return {"name": made.name, "pipeline_py": made.pipeline_py}


def settings_for(
    evaluator: Evaluator,
    *,
    target: str,
    builtin: str,
    model: Path,
    weights: str,
    folder: Path,
    seed: int,
    environment: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """Return what supervisors need to measure as an evaluator here does, as plain data.

    Args:
        evaluator: whose baseline, workload and thresholds are meant.
        builtin: name of the built-in model whose scorer judges the images; empty for none.
        model: its directory, on every machine under the same path; weights: hash of its files.
        folder: of the run; on other machines one of that name is made.
        environment: the user's.
    """
    return {
        "baseline": evaluator.baseline.pipeline_py,
        "workload": asdict(evaluator.workload),
        "thresholds": evaluator.thresholds.to_json(),
        "target": target,
        "builtin": builtin,
        "model": str(model),
        "weights": weights,
        "folder": str(folder.resolve()),
        "seed": seed,
        "threads": {name: environment[name] for name in THREADS if name in environment},
        "machine": _machine(target),
    }


def measure(settings: Mapping[str, Any]) -> Callable[[Mapping[str, JSON]], Outcome]:
    """Make what measures on a supervisor's machine; called by the supervisor, in its process.

    Raises:
        DiffoptError: the machine, its libraries or the model differ from the driver's, or the baseline does not run.
    """
    from diffopt.bench.evaluate import Evaluator, Program, Thresholds
    from diffopt.bench.outcome import outcome_from_json
    from diffopt.bench.workload import Workload
    from diffopt.session import SEARCH_PAIRS, distances_for, model_hash, network_for
    from diffopt.sources import lift

    host, model, folder = socket.gethostname(), Path(settings["model"]), Path(settings["folder"])
    for what, there in settings["machine"].items():
        if (here := _machine(settings["target"])[what]) != there:
            hint = "figures of different kinds are never mixed: use machines of one kind, set up alike"
            raise DiffoptError(f"{host} has {what} {here}, the driver {there}", where=OPTION, hint=hint)
    if model_hash(model) != settings["weights"]:
        state = "is another" if model.is_dir() else "is not there"
        raise DiffoptError(f"the model {state} on {host}", where=str(model), hint="it must stand under the same path")
    builtin = lift(settings["builtin"]).builtin if settings["builtin"] else None
    workload: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings["workload"].items()}
    own = {name: value for name, value in os.environ.items() if name not in THREADS}
    evaluator = Evaluator(
        Program("baseline", settings["baseline"]),
        Workload(**workload),
        work=folder / "work" / f"{host}-{os.getpid()}",
        engines=folder / "engines",
        hidden=(folder,),
        device="cpu" if settings["target"] == "cpu" else "cuda",  # Ray shows a supervisor its own GPU alone
        scorer=builtin.scorer() if builtin is not None else None,
        network=network_for(builtin),
        perceptual=distances_for(builtin),
        thresholds=Thresholds.from_json(settings["thresholds"]),
        weights=settings["weights"],
        seed=settings["seed"],
        environment={**own, **settings["threads"]},
    ).__enter__()  # never left: its workers end with the supervisor, which is killed at the end

    def run(given: Mapping[str, Any]) -> Outcome:
        if "failed" in given:
            return outcome_from_json(given["failed"])
        return evaluator.evaluate(Program(given["name"], given["pipeline_py"]), pairs=SEARCH_PAIRS)

    return run


def _machine(target: str) -> dict[str, Any]:
    """Return what must be the same on all machines of a run."""
    from diffopt.bench.device import devices, versions

    kind = target.split(":")[0]
    here = [d for d in devices(accelerators=kind != "cpu") if str(d["device"]).startswith(kind)]
    return {
        "device": f"{here[0]['name']} with {here[0]['features']}" if here else "no device",
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(versions().items())),
    }
