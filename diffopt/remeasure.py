"""An artifact measured again: its baseline, its workload and its thresholds, as the manifest has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from diffopt.artifact import Artifact, check_model
from diffopt.bench.device import check_target
from diffopt.bench.disk import scratch
from diffopt.bench.evaluate import Evaluator, Outcome, Program, Thresholds, outcome_from_json
from diffopt.bench.workload import Workload
from diffopt.events import Listener, Progress, silence
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import parse_module
from diffopt.passes.pipeline import Trace
from diffopt.session import distances_for, network_for, program
from diffopt.sources import lift

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp


@dataclass(frozen=True)
class Bench:
    """What is needed to measure an artifact and parts of it here.

    Args:
        module: the user's pipeline as it was; trace: the passes of the artifact.
        shipped: the artifact's own pipeline.py.
        recorded: the outcome in the manifest.
    """

    artifact: Artifact
    module: ModuleOp
    trace: Trace
    shipped: Program
    recorded: Outcome
    evaluator: Evaluator
    folder: Path


@contextmanager
def bench_of(
    path: str | Path,
    *,
    model: str | Path | None = None,
    prompts: int | None = None,
    build: bool = False,
    listen: Listener = silence,
) -> Iterator[Bench]:
    """Open an artifact and an evaluator of its baseline, closed at the end.

    Args:
        model: where the model directory stands, if it has moved.
        prompts: use so many of the search's prompts only; None for all.
        build: keep engines that are built meanwhile out of the artifact.

    Raises:
        DiffoptError: no artifact, made for other versions, or a manifest that cannot be used.
    """
    artifact = Artifact.open(path)
    check_model(model)
    artifact.check_versions()
    manifest, asked, source = artifact.manifest, artifact.manifest["workload"], artifact.manifest["source"]
    try:
        module = parse_module(manifest["baseline_ir"], f"{path}: baseline_ir")
        builtin = lift(source["path"]).builtin if source["kind"] == "builtin" else None
        work = Workload(
            tuple(asked["search_prompts"]), tuple(asked["prompts"]), asked["seed"], asked["height"], asked["width"]
        )
        thresholds = Thresholds.from_json(manifest["thresholds"])
        recorded = outcome_from_json(manifest["result"])
        trace = Trace.parse(manifest["trace"])
    except (KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise DiffoptError(f"the manifest cannot be used ({what})", where=str(path), hint="compile it again") from error
    check_target(manifest["target"])
    if prompts is not None and prompts < 1:
        raise DiffoptError("must be at least 1", where="--prompts")
    if prompts is not None:
        work = replace(work, prompts=work.prompts[:prompts])
    shipped = Program("artifact", (artifact.path / "pipeline.py").read_text(encoding="utf-8"))
    with scratch("diffopt-measure-") as folder:
        engines = borrowed(folder / "engines", artifact.path / "engines") if build else artifact.path / "engines"
        with Evaluator(
            program(module, "baseline"),
            work,
            work=folder / "work",
            engines=engines,
            device=manifest["target"],
            model=None if model is None else str(model),
            scorer=builtin.scorer() if builtin is not None else None,
            network=network_for(builtin),
            perceptual=distances_for(builtin),
            thresholds=thresholds,
            progress=lambda stage, done, total: listen(Progress(stage, done, total)),
        ) as evaluator:
            yield Bench(artifact, module, trace, shipped, recorded, evaluator, folder)


def borrowed(place: Path, *owners: Path) -> Path:
    """Make a folder of engines that uses those of others and keeps new ones to itself."""
    place.mkdir(parents=True, exist_ok=True)
    for owner in owners:
        for engine in sorted(owner.iterdir()) if owner.is_dir() else ():
            link = place / engine.name
            if not link.exists():
                link.symlink_to(engine.resolve())
    return place
