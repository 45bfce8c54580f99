"""From a source to an artifact and back: the whole path, on a small pipeline that the project has never seen."""

from __future__ import annotations

import json
import os
import runpy
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from diffopt.api import Goal, compile, verify
from diffopt.artifact import Artifact, load
from diffopt.cli import main
from diffopt.finals import control_traces
from diffopt.ir.errors import DiffoptError

pytestmark = pytest.mark.slow

PROMPTS = ["a cat", "a red house", "two boats at sea", "a green tree", "snow", "a street at night"]
STOCK = "stock torch.compile"
ENGINE = "export{scope=denoiser precision=f32}"

SCRIPT = """\
import sys
import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained({model!r}, dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)


def draw(prompt, seed):
    generator = torch.Generator("cpu").manual_seed(seed)
    return pipe(prompt, num_inference_steps=6, guidance_scale=3.0, generator=generator).images[0]   # six steps


if __name__ == "__main__":
    draw(sys.argv[1], int(sys.argv[2])).save(sys.argv[3])
"""


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    file.write_text("# for tests\n" + "\n".join(PROMPTS) + "\n")
    return file


@pytest.fixture(scope="module")
def artifact(tiny_directory: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    out = tmp_path_factory.mktemp("artifact") / "out"
    with pytest.MonkeyPatch.context() as patch:
        # Compiling a whole UNet takes a minute; what stands in for it is measured as it would be, and
        # tests/bench/test_evaluate.py compiles a part of one within the walls.
        patch.setattr(
            "diffopt.finals.control_traces", lambda *given: {**control_traces(*given), STOCK: "channels-last"}
        )
        made = compile(
            tiny_directory,
            out,
            goal=Goal("exact"),
            passes=ENGINE,
            prompts=prompts,
            settings={"steps": "6", "guidance": "3"},
        )
    assert made is not None
    return made


@pytest.fixture(scope="module")
def scripted(tiny_directory: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact]:
    folder = tmp_path_factory.mktemp("scripted")
    script = folder / "draw.py"
    script.write_text(SCRIPT.format(model=str(tiny_directory)))
    made = compile(
        script,
        folder / "out",
        goal=Goal("traded"),
        passes="reduce-steps{steps=5 solver=own}," + ENGINE,
        prompts=prompts,
        controls=False,
    )
    assert made is not None
    return script, made


def measured_images(artifact: Artifact) -> list[dict[str, Any]]:
    """Return prompt, seed and file names of the images that the artifact keeps."""
    entries: list[dict[str, Any]] = json.loads((artifact.path / "images" / "images.json").read_text())["images"]
    return [entry for entry in entries if (artifact.path / "images" / entry["candidate"]).exists()]


def test_the_artifact_holds_what_it_must(artifact: Artifact) -> None:
    present = {path.name for path in artifact.path.iterdir()}
    assert present == {"manifest.json", "pipeline.py", "report.html", "engines", "images"}
    manifest = artifact.manifest
    assert manifest["tier"] == "exact"
    assert manifest["engines"], "the engine travels with the artifact"
    assert {control["name"] for control in manifest["controls"]} == {"fewer steps at equal time", STOCK}
    assert manifest["thresholds"]["near_psnr_median"] == 35.0
    assert not list(artifact.path.rglob("*.pkl")) + list(artifact.path.rglob("*.pt"))


def test_a_fresh_process_gives_the_measured_images_without_the_compiler(artifact: Artifact, tmp_path: Path) -> None:
    entry = measured_images(artifact)[0]
    code = f"""
        import sys, diffopt, torch
        pipe = diffopt.load({str(artifact.path)!r})
        image = pipe({entry["prompt"]!r}, generator=torch.Generator("cpu").manual_seed({entry["seed"]})).images[0]
        image.save({str(tmp_path / "again.png")!r})
        loaded = [name for name in ("xdsl", "libcst", "openai", "moocore") if name in sys.modules]
        assert not loaded, loaded
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=tmp_path, timeout=180)
    assert (tmp_path / "again.png").read_bytes() == (artifact.path / "images" / entry["candidate"]).read_bytes()


def test_the_loaded_pipeline_takes_the_arguments_it_took_before(artifact: Artifact) -> None:
    pipe = load(artifact.path)
    pipe.set_progress_bar_config(disable=True)
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    images = pipe(["a cat", "a dog"], num_inference_steps=2, guidance_scale=1.0, output_type="np").images
    assert images.shape[0] == 2


def test_verify_measures_again_and_keeps(artifact: Artifact) -> None:
    verdict = verify(artifact.path)
    assert verdict.ok, verdict.reason


def test_explain_names_the_passes_and_where_the_time_goes(
    artifact: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(artifact.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [step["pass"].split("{")[0] for step in found["steps"]] == ["export"]
    assert {"text_encoder", "unet", "vae"} < found["stages_s"].keys()
    assert all(seconds >= 0 for seconds in found["stages_s"].values())


def test_a_changed_file_is_noticed(artifact: Artifact, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(artifact.path, copy)
    with (copy / "pipeline.py").open("a") as file:
        file.write("# changed\n")
    with pytest.raises(DiffoptError, match=r"pipeline\.py is not the file that was measured"):
        load(copy)


def test_another_version_or_device_says_what_to_do(artifact: Artifact, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(artifact.path, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    with pytest.raises(DiffoptError, match="compile it again with --target cuda"):
        load(copy, device="cuda")
    manifest["versions"]["openvino"] = "1999.1"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DiffoptError, match=r"made with openvino 1999\.1.*pip install 'openvino==1999\.1'"):
        load(copy)


def test_a_model_that_moved_can_be_named(artifact: Artifact, tiny_directory: Path, tmp_path: Path) -> None:
    import shutil

    moved = tmp_path / "moved"
    shutil.copytree(tiny_directory, moved)
    assert type(load(artifact.path, model=moved)).__name__ == "StableDiffusionPipeline"
    with pytest.raises(DiffoptError, match="nowhere: no such model directory"):
        load(artifact.path, model=tmp_path / "nowhere")


def test_the_patched_script_gives_the_measured_images_and_the_reverse_patch_restores_it(
    scripted: tuple[Path, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, artifact = scripted
    original = script.read_bytes()
    entry = measured_images(artifact)[0]
    patch = str(artifact.path / "changes.patch")
    subprocess.run(["git", "apply", patch], cwd=script.parent, check=True)
    try:
        assert script.read_bytes() != original
        out = tmp_path / "out.png"
        monkeypatch.setattr(sys, "argv", [str(script), entry["prompt"], str(entry["seed"]), str(out)])
        runpy.run_path(str(script), run_name="__main__")
        assert out.read_bytes() == (artifact.path / "images" / entry["candidate"]).read_bytes()
        subprocess.run(["git", "apply", "-R", patch], cwd=script.parent, check=True)
        assert script.read_bytes() == original
    finally:
        script.write_bytes(original)


def test_an_impossible_goal_leaves_no_artifact(tiny_directory: Path, prompts: Path, tmp_path: Path) -> None:
    made = compile(
        tiny_directory,
        tmp_path / "out",
        goal=Goal("exact", max_latency=0.001),
        passes=ENGINE,
        prompts=prompts,
        settings={"steps": "4"},
    )
    assert made is None
    assert not (tmp_path / "out").exists()


def test_a_killed_search_goes_on_and_loses_and_repeats_nothing(
    tiny_directory: Path,
    prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["compile", str(tiny_directory), "-o", "out", "--budget", "3"]
    command += [
        "--set",
        "steps=6",
        "--set",
        "guidance=3",
        "--prompts",
        str(prompts),
        "--tier",
        "traded",
        "--no-controls",
    ]
    store = tmp_path / "out.run" / "store.sqlite"
    started = [sys.executable, "-m", "diffopt", *command]
    process = subprocess.Popen(started, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 180
    while not told(store) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = told(store)
    assert before, "the search was to be killed after its first measurement"
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--resume", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result.keys() >= {"ok", "artifact", "tier", "speedup", "fidelity", "baseline", "trace"}
    assert result["speedup"].keys() == {"ratio", "lo", "hi"}
    after = told(store)
    assert before.items() <= after.items(), "what was measured before the kill is still there, unchanged"
    assert len(after) == 3


def told(store: Path) -> dict[str, str]:
    """Return the outcomes of a search by candidate key; empty while there is no store."""
    if not store.exists():
        return {}
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=5) as db:
            rows = db.execute(
                "select c.key, o.json from outcome o join candidate c on c.run_id = o.run_id and c.id = o.candidate_id"
                " where c.run_id = 'search'"
            ).fetchall()
    except sqlite3.OperationalError:
        return {}
    assert len({key for key, _ in rows}) == len(rows), "one program is measured once"
    return dict(rows)
