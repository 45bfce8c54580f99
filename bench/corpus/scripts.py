"""Inputs for fuzzing: scripts cut, mixed and damaged, and scripts made of random pieces."""

from __future__ import annotations

import random
import re

NAMES = ("pipe", "p", "x", "self", "args", "config", "image", "diffusers", "torch", "prompt", "steps", "f", "é")
ATOMS = ("1", "0.5", "-3", "None", "True", "'a cat'", '"b"', "'''c\nd'''", "10**9", "1e400", "b'z'", "...", "''")
CLASSES = ("StableDiffusionPipeline", "FluxPipeline", "DiffusionPipeline", "AutoPipelineForText2Image", "Nothing", "os")
METHODS = (
    "to",
    "from_pretrained",
    "from_pipe",
    "load_lora_weights",
    "set_adapters",
    "images",
    "enable_x",
    "get",
    "format",
)
KEYWORDS = ("num_inference_steps", "guidance_scale", "prompt", "torch_dtype", "image", "height", "scheduler", "unet")
PIECES = (
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ":",
    ",",
    "=",
    "*",
    "**",
    "\n",
    "\t",
    "    ",
    "\\\n",
    "#",
    '"""',
    "lambda: ",
    "\f",
    "\r",
    "é",
    "\u2028",
)


def mutated(chance: random.Random, text: str, other: str) -> str:
    """Return a text cut or changed in one to three ways."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        lines = text.split("\n")
        at = chance.randrange(len(lines))
        place = chance.randint(0, len(text))
        match chance.randrange(10):
            case 0:
                text = text[:place]
            case 1:
                text = text[place:]
            case 2:
                text = "\n".join(lines[:at] + lines[at + 1 :])
            case 3:
                text = "\n".join([*lines[:at], lines[at], *lines[at:]])
            case 4:
                lines.insert(at, lines.pop(chance.randrange(len(lines))))
                text = "\n".join(lines)
            case 5:
                text = text[:place] + chance.choice(PIECES) + text[place:]
            case 6:
                text = text[:place] + other[chance.randint(0, len(other)) :]
            case 7:
                words = re.findall(r"\w+", text) or [""]
                text = re.sub(
                    rf"\b{re.escape(chance.choice(words))}\b", lambda _: _expression(chance, 2), text, count=1
                )
            case 8:
                lines[at] = "    " + lines[at]
                text = "\n".join(lines)
            case 9:
                lines.insert(at, _statement(chance, "", 2))
                text = "\n".join(lines)
    return text


def made_up(chance: random.Random) -> str:
    """Return a script of random statements; most are Python, few make sense."""
    head = ["import torch", f"from diffusers import {chance.choice(CLASSES)}", "import diffusers"]
    start = f"pipe = {chance.choice(CLASSES[:4])}.from_pretrained({_expression(chance, 1)})"
    body = [_statement(chance, "", 3) for _ in range(chance.randint(1, 14))]
    return "\n".join([*chance.sample(head, chance.randint(1, 3)), start, *body]) + chance.choice(("", "\n"))


def _statement(chance: random.Random, indent: str, depth: int) -> str:
    if depth <= 0:
        return f"{indent}pass"
    inner = "\n".join(_statement(chance, indent + "    ", depth - 1) for _ in range(chance.randint(1, 3)))
    name, value = chance.choice(NAMES), _expression(chance, depth)
    match chance.randrange(14):
        case 0:
            return f"{indent}if {value}:\n{inner}\n{indent}else:\n{indent}    {name} = {value}"
        case 1:
            return f"{indent}for {name} in {value}:\n{inner}"
        case 2:
            return f"{indent}def f({name}={value}, *a, **k):\n{inner}\n{indent}    return {_expression(chance, 1)}"
        case 3:
            return f"{indent}class C:\n{inner}"
        case 4:
            return f"{indent}with {value} as {name}:\n{inner}"
        case 5:
            return f"{indent}try:\n{inner}\n{indent}except Exception as {name}:\n{inner}"
        case 6:
            return f"{indent}{name}, ({chance.choice(NAMES)}, *y) = {value}"
        case 7:
            return f"{indent}{name}.{chance.choice(KEYWORDS)} = {value}"
        case 8:
            return f"{indent}{name}[{_expression(chance, 1)}] = {value}"
        case 9:
            return (
                f"{indent}pipe({value}, {chance.choice(KEYWORDS)}={_expression(chance, 1)}, **{_expression(chance, 1)})"
            )
        case 10:
            return f"{indent}global {name}" if indent else f"{name}: int = {value}"
        case 11:
            return f"{indent}match {value}:\n{indent}    case {{'a': {name}, **rest}}:\n{inner}"
        case _:
            return f"{indent}{name} = {value}"


def _expression(chance: random.Random, depth: int) -> str:
    if depth <= 0:
        return chance.choice((*NAMES, *ATOMS))
    one, two = _expression(chance, depth - 1), _expression(chance, depth - 1)
    match chance.randrange(14):
        case 0:
            return f"{one}.{chance.choice((*METHODS, *KEYWORDS))}"
        case 1:
            return f"{one}({two}, {chance.choice(KEYWORDS)}={one})"
        case 2:
            return f"{one}[{two}]"
        case 3:
            return f"[{one} for {chance.choice(NAMES[:3])} in {two}]"
        case 4:
            return f"{{{one}: {two}, **{chance.choice(NAMES)}}}"
        case 5:
            return f"({one} if {two} else {one})"
        case 6:
            return f"({one} {chance.choice(('+', '*', '%', '|', 'and', '==', 'in', '**', '@', '<<'))} {two})"
        case 7:
            return f"f'{{{chance.choice(NAMES)}!r:>9}} {{{{}}}}'"
        case 8:
            return f"(lambda {chance.choice(NAMES)}: {one})"
        case 9:
            return f"diffusers.{chance.choice(CLASSES)}.{chance.choice(METHODS)}({one})"
        case 10:
            return f"functools.partial({one}, {two})"
        case 11:
            return f"({chance.choice(NAMES)} := {one})"
        case 12:
            return f"os.environ.get({one}, {two})"
        case _:
            return chance.choice((*NAMES, *ATOMS))
