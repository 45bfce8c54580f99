"""Where the lines of a patch go: behind all that the script does to its pipeline, wherever that stands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from diffopt.cli import main
from diffopt.ir.emit_edits import apply_edits, emit_edits
from diffopt.ir.errors import DiffoptError
from diffopt.ir.script_choice import choose
from diffopt.ir.script_outcome import check_outcome
from diffopt.ir.script_pipelines import Pipelines
from diffopt.ir.script_text import parse_script
from tests.ir.test_emit_edits import SCRIPTS, check_laws, optimized

PLACE = SCRIPTS / "written_here.py.txt"
STEPS = "reduce-steps{steps=3}"
SETTER = "pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)"
HEAD = """\
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, StableDiffusionPipeline

sampler = "euler"
"""
LOAD = """\
def load():
    pipe = StableDiffusionPipeline.from_pretrained("model")
    return pipe

"""


def patched(text: str, trace: str = STEPS) -> list[str]:
    """Return the lines of a script with a trace's patch, without the comments of diffopt."""
    after = check_laws(text, PLACE, optimized(text, PLACE, trace))
    return [re.sub(r"\s*# diffopt.*", "", line).strip() for line in after.splitlines()]


def is_ours(line: str) -> bool:
    return "DPMSolverMultistepScheduler.from_config(" in line


@pytest.mark.parametrize(
    ("body", "before"),
    [
        (
            f"""
def setup(pipe):
    {SETTER}

{LOAD}
pipe = load()
setup(pipe)
pipe("a star", num_inference_steps=20)
""",
            "setup(pipe)",
        ),
        (
            f"""
class App:
    def configure(self):
        self.{SETTER.replace("(pipe", "(self.pipe")}

    def __init__(self):
        self.pipe = StableDiffusionPipeline.from_pretrained("model")
        self.configure()

    def paint(self):
        return self.pipe("a star", num_inference_steps=20)

App().paint()
""",
            "self.configure()",
        ),
        (
            f"""
def set_sampler(pipe, name):
    {SETTER}
    return pipe

{LOAD}
model = set_sampler(load(), "euler")
model("a star", num_inference_steps=20)
""",
            'model = set_sampler(load(), "euler")',
        ),
    ],
    ids=["function", "method", "wrapped"],
)
def test_the_scheduler_is_set_behind_the_function_that_sets_it(body: str, before: str) -> None:
    lines = patched(HEAD + body)
    assert is_ours(lines[lines.index(before) + 1])


def test_components_are_quantized_behind_the_function_that_fuses_adapters() -> None:
    text = f"""{HEAD}
def add_lora(pipe):
    pipe.load_lora_weights("some/lora")
    pipe.fuse_lora()

{LOAD}
pipe = load()
add_lora(pipe)
pipe("a star", num_inference_steps=20)
"""
    lines = patched(text, "quantize")
    assert lines[lines.index("add_lora(pipe)") + 1].startswith("quantize(pipe, ")


@pytest.mark.parametrize(
    "behind",
    [
        f'def infer():\n    if sampler == "euler":\n        {SETTER}\n    return pipe("a", num_inference_steps=20)\n\ninfer()\n',
        f'pipe("a", num_inference_steps=20)\n{SETTER}\npipe("b", num_inference_steps=20)\n',
        f'def reset():\n    {SETTER}\n\npipe("a", num_inference_steps=20)\nreset()\npipe("a", num_inference_steps=20)\n',
    ],
    ids=["in-the-call", "between-calls", "function-between-calls"],
)
def test_a_scheduler_that_is_set_again_later_is_refused(behind: str) -> None:
    text = f'{HEAD}pipe = StableDiffusionPipeline.from_pretrained("model")\n{behind}'
    line = text[: text.index(SETTER)].count("\n") + 1
    with pytest.raises(DiffoptError, match="the script sets the scheduler again behind the place of the edit") as error:
        emit_edits(optimized(text, PLACE, STEPS), text, path=PLACE)
    assert str(error.value.where).endswith(f":{line}")


@pytest.mark.parametrize(
    "line",
    [
        'pipe.to("cuda")  # diffopt needs the GPU',
        "pipe.enable_vae_slicing()  # diffopt",
        "pipe.enable_vae_slicing()  # diffopt: slices",
        "pipe.vae = pipe.vae.eval()  # diffopt: quantize",
        "from os import system  # diffopt: x",
        "from diffusers import StableDiffusionXLPipeline  # diffopt: our own import",
    ],
)
def test_lines_of_the_user_with_such_a_comment_stay(line: str) -> None:
    text = f'{HEAD}pipe = StableDiffusionPipeline.from_pretrained("model")\n{line}\npipe("a", num_inference_steps=20)\n'
    after = check_laws(text, PLACE, optimized(text, PLACE, STEPS))
    assert line in after.splitlines()


def test_other_passes_on_a_patched_script_are_refused_and_the_same_change_nothing() -> None:
    text = f'{HEAD}pipe = StableDiffusionPipeline.from_pretrained("model")\npipe("a", num_inference_steps=20)\n'
    once = apply_edits(text, emit_edits(optimized(text, PLACE, f"{STEPS},quantize"), text, path=PLACE))
    with pytest.raises(DiffoptError, match="carries a patch of diffopt already"):
        emit_edits(optimized(once, PLACE, "export{backend=openvino}"), once, path=PLACE)
    assert emit_edits(optimized(text, PLACE, f"{STEPS},quantize"), once, path=PLACE) == ()


def test_the_same_trace_on_its_own_patched_script_gives_an_empty_patch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(SCRIPTS / "model", tmp_path / "model")
    script = tmp_path / "paint.py"
    text = f'{HEAD}pipe = StableDiffusionPipeline.from_pretrained("model")\npipe("a", num_inference_steps=20)\n'
    trace = "reduce-steps{steps=8},guidance-window{stop=0.5}"
    script.write_text(apply_edits(text, emit_edits(optimized(text, PLACE, trace), text, path=PLACE)))
    command = ["emit", str(script), "--patch", "--passes"]
    assert main([*command, trace]) == 0
    assert capsys.readouterr().out == ""
    for other in ("reduce-steps{steps=9}", "reduce-steps{steps=8 solver=unipc}"):
        assert main([*command, other]) == 2
        assert "are no fewer than the 8 there are" in capsys.readouterr().err


def test_edits_that_would_not_make_the_scheduler_of_the_module_are_refused() -> None:
    text = f'{HEAD}pipe = StableDiffusionPipeline.from_pretrained("model")\npipe("a", num_inference_steps=20)\n'
    module, pipelines = optimized(text, PLACE, STEPS), Pipelines(parse_script(text, PLACE))
    with pytest.raises(DiffoptError, match="with the edits made, the scheduler would be"):
        check_outcome(pipelines, choose(pipelines), (), module, {})
    with pytest.raises(DiffoptError, match="would have num_inference_steps=20, not 3"):
        check_outcome(pipelines, choose(pipelines), (), module, {"num_inference_steps": 3})


TRIED = """\
try:
    pipe = StableDiffusionPipeline.from_pretrained("model", local_files_only=True)
except OSError:
    {other}
pipe("a", num_inference_steps=20)
"""


def test_a_pipeline_built_in_a_try_is_changed_behind_it() -> None:
    other = 'pipe = StableDiffusionPipeline.from_pretrained("model")'
    text = HEAD + TRIED.format(other=other)
    lines = patched(text)
    assert is_ours(lines[lines.index(other) + 1])
    assert "\n    pipe.scheduler =" not in check_laws(text, PLACE, optimized(text, PLACE, STEPS))


def test_a_try_with_a_branch_without_a_pipeline_is_refused() -> None:
    other = 'pipe = StableDiffusionPipeline.from_pretrained("model")\nexcept ValueError:\n    print("none")'
    text = HEAD + TRIED.format(other=other)
    with pytest.raises(DiffoptError, match="in some branches of a `try`"):
        emit_edits(optimized(text, PLACE, STEPS), text, path=PLACE)


def test_a_function_that_returns_a_pipeline_from_a_try_is_changed_in_both_branches() -> None:
    text = f"""{HEAD}
def load():
    try:
        return StableDiffusionPipeline.from_pretrained("model", local_files_only=True)
    except OSError:
        return StableDiffusionPipeline.from_pretrained("model")

pipe = load()
pipe("a", num_inference_steps=20)
"""
    lines = patched(text)
    assert sum("DPMSolverMultistepScheduler.from_config(" in line for line in lines) == 2
    assert lines.count("return pipeline") == 2
