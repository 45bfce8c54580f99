"""The commands, one file each: `TEXT`, `add_arguments(parser)` and `run(options)`, which returns the exit code.

What several of them share stands here.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import logging
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

from diffopt.ir.errors import DiffoptError

BUILTIN_NAMES = "demo:shapes, demo:shapes-flow, demo:shapes-pixart, demo:shapes-xl, demo:shapes-v or demo:shapes-edges"
"""The built-in models, in words; written out, since asking for them takes longer than printing help should."""
ARTIFACT = "a folder that `diffopt compile` wrote"
SOURCE = f"a .py script or notebook, a model directory, a hub id, IR text (.mlir), or a built-in model: {BUILTIN_NAMES}"


class Command(Protocol):
    """What the module of a command holds."""

    TEXT: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, options: argparse.Namespace) -> int:
        """Run the command and return its exit code."""


def commands() -> Iterator[tuple[str, Command]]:
    """Yield every command by its name, in the order of the alphabet."""
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        yield info.name.replace("_", "-"), cast(Command, importlib.import_module(f"{__name__}.{info.name}"))


def add_set(parser: argparse.ArgumentParser) -> None:
    """Add the option that fills in what a source leaves open."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="steps=30, guidance=5, or a name left open"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option to answer in JSON."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def settings_of(options: argparse.Namespace) -> dict[str, str]:
    """Return what `--set` gives.

    Raises:
        DiffoptError: a text is not NAME=VALUE.
    """
    settings = {}
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise DiffoptError(f"{text!r} is not NAME=VALUE", where="--set", hint="write it like --set steps=30")
        settings[name] = value
    return settings


def size_of(text: str | None) -> tuple[int, int] | None:
    """Return height and width that `--size` gives.

    Raises:
        DiffoptError: the text is not HEIGHTxWIDTH.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise DiffoptError(f"{text!r} is no size", where="--size", hint="write it like 512x768")
    return int(match.group(1)), int(match.group(2))


def print_json(data: object) -> None:
    """Print one JSON object on standard output."""
    sys.stdout.write(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the libraries from talking about their optional parts while they load; diffopt's own word comes later."""
    from diffusers.utils.logging import disable_progress_bar
    from transformers.utils.logging import disable_progress_bar as disable_other_progress_bar

    logging.disable(logging.WARNING)
    disable_progress_bar()
    disable_other_progress_bar()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def result_json(ok: bool, path: Path, outcome: dict[str, Any], trace: str) -> dict[str, Any]:
    """Return the JSON that `compile` and `verify` share."""
    latency = outcome.get("latency", {})
    samples = sorted(latency.get("baseline_s", ()))
    return {
        "ok": ok,
        "artifact": str(path),
        "tier": outcome.get("tier"),
        "speedup": {key: latency.get(key) for key in ("ratio", "lo", "hi")},
        "fidelity": outcome.get("fidelity"),
        "baseline": {
            "median_s": samples[len(samples) // 2] if samples else None,
            "samples_s": latency.get("baseline_s"),
        },
        "latency": latency,
        "memory": outcome.get("memory"),
        "witnesses": outcome.get("witnesses"),
        "build_s": outcome.get("build_s"),
        "first_call_s": outcome.get("first_call_s"),
        "trace": trace,
    }
