"""Say what an artifact is: each pass of its trace, what was measured, and where the time of a call goes here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffopt.artifact import Artifact
from diffopt.ir.errors import DiffoptError


@dataclass(frozen=True)
class Explanation:
    """What an artifact is.

    Args:
        steps: each pass with its options, what it does, and what it and those before it came to when measured.
        engine: what runs the call: "one engine for the whole call", or the components one by one.
        stages: seconds of one call by stage, measured here and now.
    """

    artifact: Artifact
    steps: tuple[tuple[str, str, str], ...]
    engine: str
    stages: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as JSON."""
        manifest = self.artifact.manifest
        return {
            "ok": True,
            "artifact": str(self.artifact.path),
            "trace": manifest["trace"],
            "steps": [{"pass": name, "explanation": text, "so_far": so_far} for name, text, so_far in self.steps],
            "result": manifest["result"],
            "engine": self.engine,
            "stages_s": dict(self.stages),
        }


def explain(path: str | Path, *, model: str | Path | None = None, runs: int = 15) -> Explanation:
    """Load an artifact and time the stages of its call, on this machine as it is now.

    Raises:
        DiffoptError: no artifact, or one that cannot be loaded here.
    """
    from diffopt.backends.openvino_profile import profile
    from diffopt.bench.stages import AROUND, scaled, stage_times

    artifact = Artifact.open(path)
    steps, prompt = _said(artifact)
    pipe = artifact.load(model=model)
    pipe.set_progress_bar_config(disable=True)
    stages = stage_times(pipe, lambda: pipe(prompt), runs=runs)
    engine, whole = "component by component", _openvino_engine(artifact)
    if whole is not None:
        # Its own counters tell the parts, but counting takes time: a run without them tells what they share.
        shares, inside = profile(*whole, runs=runs)
        stages = {**scaled(shares, inside), AROUND: max(0.0, stages[AROUND] - inside)}
        engine = "one engine for the whole call"
    return Explanation(artifact, steps, engine, stages)


def _said(artifact: Artifact) -> tuple[tuple[tuple[str, str, str], ...], str]:
    """Return the steps of the manifest and a prompt to draw.

    Raises:
        DiffoptError: the manifest does not hold what an explanation needs.
    """
    from diffopt.bench.outcome import outcome_from_json
    from diffopt.display import describe

    manifest = artifact.manifest
    try:
        describe(outcome_from_json(manifest["result"]))
        steps = tuple((str(s["pass"]), str(s["explanation"]), str(s.get("so_far", ""))) for s in manifest["steps"])
        names = [Path(name).name == name for name in manifest["engines"]]
        if not all(names):
            raise ValueError("an engine outside the artifact")
        return steps, str(manifest["workload"]["prompts"][0])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        what = f"the manifest cannot be used ({type(error).__name__}: {error})"
        raise DiffoptError(what, where=str(artifact.path), hint="compile it again") from error


def explanation_lines(found: Explanation) -> list[str]:
    """Return an explanation as text for people."""
    from diffopt.bench.outcome import outcome_from_json
    from diffopt.display import describe

    lines = [
        f"{name}\n    {text}{f' Up to here: {so_far}.' if so_far else ''}" for name, text, so_far in found.steps
    ] or ["nothing is changed"]
    lines.append(f"measured {describe(outcome_from_json(found.artifact.manifest['result']))}")
    total = sum(found.stages.values())
    lines.append(f"one call here: {1e3 * total:.1f} ms, {found.engine}")
    lines += [f"  {name:<16}{1e3 * value:8.2f} ms {100 * value / total:5.1f} %" for name, value in found.stages.items()]
    return lines


def _openvino_engine(artifact: Artifact) -> tuple[Path, Any] | None:
    """Return the folder and options of the artifact's only engine, if that is one of OpenVINO for the whole call."""
    from diffopt.backends.base import EngineOptions
    from diffopt.backends.engine_store import read_manifest

    folders = [artifact.path / "engines" / name for name in artifact.manifest["engines"]]
    if len(folders) != 1:
        return None
    engine = read_manifest(folders[0])
    if engine["key"]["backend"] != "openvino" or "calls" not in engine["facts"]:
        return None
    options = engine["key"]["options"]
    return folders[0], EngineOptions(options["precision"], options["dynamic_int8"])
