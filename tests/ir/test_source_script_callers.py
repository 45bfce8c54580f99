"""Lifting scripts: what callers give for a parameter goes before its default, and what only a run can tell is asked."""

from __future__ import annotations

import pytest

from diffopt.ir.source_script import describe_text

HEAD = """
import asyncio, functools, json, sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Thread
import torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained("runwayml/stable-diffusion-v1-5")
executor = ThreadPoolExecutor()
"""
GEN = """
def gen(prompt, steps=30, cfg=7.5):
    return pipe(prompt, num_inference_steps=steps, guidance_scale=cfg)
"""


def lifted(tail: str, definition: str = GEN) -> tuple[int | None, float | None]:
    """Return steps and guidance; `None` where they are unknown."""
    described = describe_text(HEAD + definition + tail, "app.py")
    unknown = {item.name for item in described.unknowns}
    return (
        None if "steps" in unknown else described.steps,
        None if "guidance" in unknown else described.guidance,
    )


@pytest.mark.parametrize(
    ("tail", "steps", "guidance"),
    [
        ('gen("x")', 30, 7.5),
        ('gen(*("x", 77))', 77, 7.5),
        ('given = ["x", 78]\ngen(*given)', 78, 7.5),
        ("gen(*sys.argv[1:])", None, None),
        ("gen(*sys.argv[1:], cfg=3.0)", None, 3.0),
        ('gen("x", *sys.argv[1:])', None, None),
        ("gen(**json.load(open('f')))", None, None),
        ("gen('x', **{'cfg': 2.5})", 30, 2.5),
        ("g = partial(gen, steps=5)\ng('x')", 5, 7.5),
        ("g = partial(gen, steps=5)\ng('x', steps=6)", 6, 7.5),
        ("partial(gen, 'x')(9)", 9, 7.5),
        ('executor.submit(gen, "a", 14)', 14, 7.5),
        ('executor.submit(gen, "a", cfg=2.0)', 30, 2.0),
        ('asyncio.run(asyncio.to_thread(gen, "a", 14))', 14, 7.5),
        ('loop.run_in_executor(None, gen, "a", 15)', 15, 7.5),
        ('list(map(gen, ["a"], [50]))', 50, 7.5),
        ('list(map(gen, ["a", "b"], [50, 60]))', None, 7.5),
        ('Thread(target=gen, args=("x", 12)).start()', 12, 7.5),
        ('Thread(target=gen, args=("x",), kwargs={"cfg": 3.0}).start()', 30, 3.0),
        ("gen.__defaults__ = (3, 1.0)\ngen('x')", None, None),
        ("alias = gen\nalias('x', 4)", None, None),
        ("jobs = [gen]\njobs[0]('x', 4)", None, None),
        ("apply(gen, 4)", None, None),
        ("button.click(gen, [box], [image])", 30, 7.5),
        ("gr.Interface(fn=gen, inputs='text', outputs='image').launch()", 30, 7.5),
        ("box.submit(gen, [box], [image])", 30, 7.5),
        ("print(gen.__name__)\ngen('x')", 30, 7.5),
    ],
)
def test_what_a_caller_gives_goes_before_the_default(tail: str, steps: int | None, guidance: float | None) -> None:
    assert lifted(tail) == (steps, guidance)


DECORATED = """
def deco(f):
    @functools.wraps(f)
    def wrapper(*a, **k):
        BODY
    return wrapper

@deco
def gen(prompt, steps=30, cfg=7.5):
    return pipe(prompt, num_inference_steps=steps, guidance_scale=cfg)
"""


@pytest.mark.parametrize(
    ("body", "steps"),
    [
        ("return f(*a, **k)", 10),
        ("print(a, k.get('cfg')); return f(*a, **k)", 10),
        ("return f(a[0], a[1] * 2)", None),
        ("k['steps'] = 20; return f(*a, **k)", None),
        ("k.setdefault('cfg', 3.0); return f(*a, **k)", None),
        ("a = (a[0], 20); return f(*a, **k)", None),
        ("return f(*a, steps=20)", None),
    ],
)
def test_a_decorator_that_changes_the_arguments_is_not_looked_through(body: str, steps: int | None) -> None:
    assert lifted('gen("x", 10)', DECORATED.replace("BODY", body))[0] == steps


def test_a_decorator_with_arguments_of_its_own_is_looked_into() -> None:
    made = """
def repeat(times):
    def deco(f):
        def wrapper(*a, **k):
            return CALL
        return wrapper
    return deco

@repeat(2)
def gen(prompt, steps=30, cfg=7.5):
    return pipe(prompt, num_inference_steps=steps, guidance_scale=cfg)
"""
    assert lifted('gen("x", 10)', made.replace("CALL", "[f(*a, **k) for _ in range(times)]"))[0] == 10
    assert lifted('gen("x", 10)', made.replace("CALL", "f(a[0], times)"))[0] is None


def test_a_decorator_of_a_library_and_one_that_only_registers_keep_the_default() -> None:
    for mark in ("@torch.inference_mode()", "@app.post('/x')", "@spaces.GPU"):
        assert lifted("", mark + GEN)[0] == 30
    assert lifted("", "\ndef register(f):\n    return f\n\n@register" + GEN)[0] == 30


def test_a_method_that_is_handed_on_is_followed_too() -> None:
    made = """
class App:
    def gen(self, prompt, steps=30, cfg=7.5):
        return pipe(prompt, num_inference_steps=steps, guidance_scale=cfg)

    def start(self):
        TAIL
"""
    assert lifted("", made.replace("TAIL", 'executor.submit(self.gen, "a", 14)'))[0] == 14
    assert lifted("", made.replace("TAIL", "return self.gen"))[0] is None
    assert lifted("", made.replace("TAIL", "button.click(self.gen, [box])"))[0] == 30


def test_the_command_line_as_keywords_gives_its_options() -> None:
    tail = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--prompt")
parser.add_argument("--steps", type=int, default=12)
gen(**vars(parser.parse_args()))
"""
    assert lifted(tail) == (12, 7.5)
