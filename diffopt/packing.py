"""From a finished run to the artifact on disk: manifest, code, patch, engines, images, report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.artifact import Artifact, installed_version, write_artifact
from diffopt.ir.dialect import steps_of
from diffopt.ir.emit_edits import emit_project_edits
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.errors import DiffoptError
from diffopt.ir.rewrite import rewrites
from diffopt.ir.script_patch import project_patch
from diffopt.passes.base import registry
from diffopt.passes.pipeline import Trace, applied
from diffopt.sources import lift

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from diffopt.finals import Final
    from diffopt.ir.rewrite import Rewriter
    from diffopt.search.records import Trial
    from diffopt.sources import Source

LIBRARIES = ("torch", "diffusers", "transformers")


def pack(
    out: Path,
    run_folder: Path,
    manifest: Mapping[str, Any],
    winner: ModuleOp,
    source: Source,
    images: Path,
    engines: tuple[str, ...],
    rewriter: Rewriter | None = None,
) -> Artifact:
    """Write the artifact; a script gets no patch where generated code rewrites what is emitted: a patch would lack it.

    Raises:
        DiffoptError: the disk is full, or the folder cannot be written; nothing half written is left.
    """
    from diffopt.report import write_report
    from diffopt.report_images import SIDES, chosen, file_of

    files = {"pipeline.py": emit_pipeline(winner, rewriter)}
    if source.kind == "script" and not rewrites(winner):
        bought = {
            step["pass"].partition("{")[0]: f"{step['so_far']} so far" for step in manifest["steps"] if step["so_far"]
        }
        files["changes.patch"] = script_patch(winner, source, engines=out / "engines", bought=bought)
    shown = [file_of(images, entry, side) for entry in chosen(images)[0] for side in SIDES]
    draft_report = run_folder / "report.html"
    write_report(manifest, images, draft_report)
    files["report.html"] = draft_report.read_text(encoding="utf-8")
    folders = {
        "engines": [run_folder / "engines" / name for name in engines],
        "images": [images / "images.json", *shown] if shown else [],
    }
    return write_artifact(out, manifest, files, folders)


def patch_of_trace(trace: Trace, source: Source, settings: Mapping[str, str], *, engines: Path) -> str:
    """Return the patch that brings passes into a script; empty where a patch has brought the same ones already.

    Raises:
        DiffoptError: a pass refuses, or the script cannot be patched.
    """
    try:
        return script_patch(applied(trace, source.module), source, engines=engines)
    except DiffoptError as refused:
        # in a script that is patched already there are no steps left to take away; from one more, the same comes out
        more = {**settings, "steps": str(steps_of(source.module) + 1)}
        try:
            again = script_patch(applied(trace, lift(source.name, more).module), source, engines=engines)
        except DiffoptError:
            again = "not the same"
        if again:
            raise refused from None
        return ""


def script_patch(winner: ModuleOp, source: Source, *, engines: Path, bought: Mapping[str, str] | None = None) -> str:
    """Return the patch of the user's script and the files of its project; empty where nothing changes.

    Args:
        bought: what each pass was measured to buy, for the comments.
    """
    if rewrites(winner):
        raise DiffoptError("generated code rewrites pipeline.py alone, not a script", where=source.name)
    edits = emit_project_edits(winner, source.name, engines=str(engines.resolve()), bought=bought)
    return project_patch(edits, source.name)


def level_json(final: Final) -> dict[str, Any]:
    """Return a level of the ladder for the manifest."""
    demands = final.level.constraints
    parts = [
        f"median paired PSNR of at least {demands.min_psnr:g} dB" if demands.min_psnr is not None else "",
        f"tier {demands.tier} or stronger" if demands.tier is not None else "",
        "the number of steps kept" if demands.keep_steps else "",
    ]
    return {
        "level": final.level.name,
        "requirement": ", ".join(filter(None, parts)),
        "trace": final.candidate.trace if final.candidate else "",
        "key": final.candidate.key if final.candidate else "",
        "outcome": final.outcome.to_json() if final.outcome else None,
    }


def trial_json(trial: Trial) -> dict[str, Any]:
    """Return a trial for the manifest."""
    candidate = trial.candidate
    return {
        "id": candidate.id,
        "trace": candidate.trace,
        "key": candidate.key,
        "origin": candidate.origin,
        "outcome": trial.outcome.to_json(),
    }


def explained(trace: Trace, so_far: Mapping[int, str]) -> list[dict[str, str]]:
    """Return each pass of a trace with the first sentence of its docstring.

    Args:
        so_far: by a number of passes, what that many of them come to together.
    """
    return [
        {
            "pass": str(p.spec(include_default=True)),
            "explanation": (registry()[p.name].__doc__ or "").split("\n")[0],
            "so_far": so_far.get(count, ""),
        }
        for count, p in enumerate(trace, start=1)
    ]


def recorded_versions(requirements: tuple[str, ...]) -> dict[str, str]:
    """Return the installed versions of the packages that an artifact depends on."""
    names = (*LIBRARIES, *(name for name in requirements if name not in LIBRARIES))
    return {name: version for name in names if (version := installed_version(name)) is not None}
