"""Pipelines that web apps run in a thread are called there."""

from __future__ import annotations

import pytest

from diffopt.ir.description import build_module
from diffopt.ir.emit_edits import apply_edits, emit_edits
from diffopt.ir.source_script import describe_text
from diffopt.passes.pipeline import Trace, applied

HEAD = """\
import asyncio
from functools import partial
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained("owner/model")
async def paint(prompt):
    loop = asyncio.get_running_loop()
    return await """
CALLS = {
    "to_thread": "asyncio.to_thread(pipe, prompt, num_inference_steps=30, height=64, width=64)",
    "executor": "loop.run_in_executor(None, pipe, prompt, 64, 64, 30)",
    "partial": "loop.run_in_executor(None, partial(pipe, prompt, num_inference_steps=30, height=64, width=64))",
    "lambda": "loop.run_in_executor(None, lambda: pipe(prompt, num_inference_steps=30, height=64, width=64))",
    "starlette": "run_in_threadpool(pipe, prompt, num_inference_steps=30, height=64, width=64)",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_a_thread_is_handed_is_a_call(call: str) -> None:
    described = describe_text(HEAD + call + "\n", "app.py")
    assert (described.steps, described.height, described.width, described.batch) == (30, 64, 64, 1)
    assert described.unknowns == ()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_its_steps_are_changed_where_they_stand(call: str) -> None:
    text = HEAD + call + "\n"
    module = applied(Trace.parse("reduce-steps{steps=6}"), build_module(describe_text(text, "app.py")))
    changed = apply_edits(text, emit_edits(module, text, path="app.py"))
    assert describe_text(changed, "app.py").steps == 6
    assert "30" not in changed
