"""Scripts of many styles, patched, make the emitted pipeline's image bit for bit, and go back to what they were."""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.packing import script_patch
from diffopt.passes.pipeline import Trace, applied
from diffopt.sources import lift

pytestmark = pytest.mark.slow

SHAPES = Path(__file__).parents[2] / "bench" / "models" / "shapes" / "weights"
PROMPT = "a large red circle on the left and a small blue square on the right, white background"
SAVE = 'image.save("out.png")\n'
LOAD = "StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32)"
HEAD = f"import torch\nfrom diffusers import StableDiffusionPipeline\n\nMODEL = {str(SHAPES)!r}\nPROMPT = {PROMPT!r}\n"
CALL = "num_inference_steps=20, guidance_scale=5.0, height=64, width=64, generator=torch.manual_seed(7))"

FUNCTION = f"""{HEAD}

def build():
    pipe = {LOAD}
    return pipe


def paint(prompt):
    pipe = build()
    return pipe(prompt, {CALL}.images[0]


image = paint(PROMPT)
{SAVE}"""

CLASS = f"""{HEAD}

class Painter:
    def __init__(self, model=MODEL, steps=20):
        self.pipe = {LOAD.replace("MODEL,", "model,")}
        self.steps = steps

    def __call__(self, prompt):
        return self.pipe(prompt, {CALL.replace("=20", "=self.steps")}.images[0]


image = Painter()(PROMPT)
{SAVE}"""

COMMAND = f"""import argparse
{HEAD}

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--prompt", default=PROMPT)
    args = parser.parse_args()
    pipe = {LOAD}.to("cpu")
    image = pipe(prompt=args.prompt, {CALL.replace("=20", "=args.steps")}.images[0]
    {SAVE}

if __name__ == "__main__":
    main()
"""

LOOP = f"""{HEAD}from diffusers import DDIMScheduler

pipe = {LOAD}
pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
for index, prompt in enumerate([PROMPT, PROMPT]):
    image = pipe(
        prompt,
        num_inference_steps=20,  # enough
        guidance_scale=5.0,
        height=64,
        width=64,
        generator=torch.manual_seed(7),
    ).images[0]
    {SAVE}"""

BY_HAND = f"""{HEAD}from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import AutoTokenizer, CLIPTextModel

pipe = StableDiffusionPipeline(
    vae=AutoencoderKL.from_pretrained(MODEL, subfolder="vae", dtype=torch.float32),
    text_encoder=CLIPTextModel.from_pretrained(MODEL, subfolder="text_encoder", dtype=torch.float32),
    tokenizer=AutoTokenizer.from_pretrained(MODEL, subfolder="tokenizer"),
    unet=UNet2DConditionModel.from_pretrained(MODEL, subfolder="unet", dtype=torch.float32),
    scheduler=DDIMScheduler.from_pretrained(MODEL, subfolder="scheduler"),
    safety_checker=None,
    feature_extractor=None,
    requires_safety_checker=False,
)
image = pipe(PROMPT, {CALL}.images[0]
{SAVE}"""

PROJECT = {
    "loading.py": f"{HEAD}\n\ndef load():\n    return {LOAD}\n",
    "app.py": "import torch\nfrom loading import PROMPT, load\n\npipe = load()\n"
    f"image = pipe(PROMPT, {CALL}.images[0]\n{SAVE}",
}


def notebook(*cells: str) -> str:
    made: list[dict[str, object]] = [
        {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": c.splitlines(True)}
        for c in cells
    ]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


STYLES: Mapping[str, Mapping[str, str]] = {
    "function": {"app.py": FUNCTION},
    "class": {"app.py": CLASS},
    "argparse": {"app.py": COMMAND},
    "loop": {"app.py": LOOP},
    "by hand": {"app.py": BY_HAND},
    "project": PROJECT,
    "notebook": {"app.ipynb": notebook(HEAD, f"pipe = {LOAD}\n", f"image = pipe(PROMPT, {CALL}.images[0]\n{SAVE}")},
}

PASSES = "reduce-steps{steps=6},export{backend=openvino}"


def run(script: Path, *, apart: bool) -> str:
    """Run a script or a notebook in its folder and return the hash of the pixels it saved.

    apart: in a process of its own, which imports everything anew; else here, as `python SCRIPT` would.
    """
    from PIL import Image

    if apart:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, script.name],
            cwd=script.parent,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    else:
        run_here(script)
    with Image.open(script.parent / "out.png") as image:
        return hashlib.sha256(image.tobytes()).hexdigest()


def run_here(script: Path) -> None:
    known = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.chdir(script.parent)
        patch.setattr(sys, "path", [str(script.parent), *sys.path])
        patch.setattr(sys, "argv", [script.name])
        if script.suffix == ".ipynb":
            cells = json.loads(script.read_text(encoding="utf-8"))["cells"]
            code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
            exec(compile(code, "cells", "exec"), {"__name__": "__main__"})  # noqa: S102 - what is tested
        else:
            runpy.run_path(script.name, run_name="__main__")
    for name in set(sys.modules) - known:  # a project's own files are others in the next one
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(script.parent)):
            del sys.modules[name]


def git_apply(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "apply", *arguments, "changes.patch"], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def emitted(engines: Path) -> Callable[[str], str]:
    """Run an emitted pipeline here and return the hash of its pixels; each text once."""
    import torch

    found: dict[str, str] = {}

    def draw(code: str) -> str:
        if code not in found:
            names: dict[str, Any] = {"__name__": "pipeline", "__file__": str(engines / "pipeline.py")}
            exec(compile(code, "pipeline.py", "exec"), names)  # noqa: S102 - the emitted code is what is tested
            pipe = names["load"](engines=engines)
            pipe.set_progress_bar_config(disable=True)
            image = pipe(PROMPT, generator=torch.manual_seed(7)).images[0]
            found[code] = hashlib.sha256(image.tobytes()).hexdigest()
        return found[code]

    return draw


@pytest.mark.parametrize("style", STYLES)
def test_the_patched_script_makes_the_emitted_image(
    style: str, tmp_path: Path, engines: Path, emitted: Callable[[str], str]
) -> None:
    files = STYLES[style]
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    script = tmp_path / list(files)[-1]
    source = lift(script)
    module = applied(Trace.parse(PASSES), source.module)
    (tmp_path / "changes.patch").write_text(script_patch(module, source, engines=engines), encoding="utf-8")
    git_apply(tmp_path)
    assert run(script, apart=style == "function") == emitted(emit_pipeline(module))
    git_apply(tmp_path, "-R")
    assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in files} == dict(files)
