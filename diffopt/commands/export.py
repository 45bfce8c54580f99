"""`diffopt export`: build engines of a pipeline's components, checked, for deployment; nothing is searched or measured."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from diffopt.commands import SOURCE, add_json, add_set, print_json, settings_of
from diffopt.ir.errors import DiffoptError
from diffopt.sources import check_exists

if TYPE_CHECKING:
    from diffopt.backends.base import Axis

TEXT = "build engines of a pipeline's components, and check them against torch"
BACKENDS = ("openvino", "onnxruntime", "aotinductor", "tensorrt", "torch-tensorrt")
RANGES = {"batch": "pictures a call", "height": "pixels", "width": "pixels", "sequence": "tokens of a prompt"}
LARGEST = 65_536
"""No dimension of an image or a prompt goes further; engines are checked at the ends of a range."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="SOURCE", nargs="?", help=SOURCE)
    parser.add_argument("--backend", choices=BACKENDS, default="openvino", help="default: %(default)s")
    parser.add_argument("-o", "--out", default="engines", help="folder of the engines (default: %(default)s)")
    parser.add_argument("--component", action="append", default=[], metavar="NAME", help="only this one; repeatable")
    parser.add_argument(
        "--precision",
        choices=("f32", "bf16", "f16", "int8", "int8-dynamic"),
        default="f32",
        help="default: %(default)s",
    )
    for name, unit in RANGES.items():
        parser.add_argument(f"--{name}", metavar="N", help=f"{unit}: N, LEAST:MOST or LEAST:USUAL:MOST")
    parser.add_argument("--passes", default="", metavar="TRACE", help="passes to apply first, such as quantize")
    parser.add_argument("--target", default="cpu", help="cpu or cuda[:N] (default: %(default)s)")
    parser.add_argument(
        "--prepare", action="store_true",
        help="tensorrt: write and check the typed graphs and profiles only, which needs no GPU",
    )  # fmt: skip
    parser.add_argument(
        "--finish", metavar="FOLDER", help="build the plans of a prepared folder, on the GPU they are for"
    )
    parser.add_argument("--force", action="store_true", help="replace engines of other settings")
    add_set(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if options.finish is not None:
        return _finish(options)
    if options.source is None:
        raise DiffoptError("there is nothing to export", where="SOURCE", hint=f"give {SOURCE}")
    if options.prepare and options.backend != "tensorrt":
        raise DiffoptError("only TensorRT builds in two steps", where="--prepare", hint="add --backend tensorrt")
    check_exists(options.source, settings_of(options))
    from diffopt.commands import quiet_libraries
    from diffopt.engine_export import export_engines

    ranges = {name: _range(name, getattr(options, name)) for name in RANGES}

    def say(name: str) -> None:
        sys.stderr.write(f"{name} ...\n")

    with quiet_libraries():
        made = export_engines(
            options.source,
            Path(options.out),
            backend=options.backend,
            precision=options.precision,
            components=options.component,
            ranges={name: axis for name, axis in ranges.items() if axis is not None},
            passes=options.passes,
            target=options.target,
            settings=settings_of(options),
            replace=options.force,
            prepare=options.prepare,
            say=say,
        )
    if options.json:
        print_json({"ok": True, "out": options.out, "components": [row.to_json() for row in made]})
        return 0
    for row in made:
        opened = ", ".join(f"{name} {least}-{most}" for name, (least, _, most) in row.open.items()) or "fixed sizes"
        error = f"relative L2 error {row.facts['relative_l2_error']:.1e}" if "relative_l2_error" in row.facts else ""
        state = "" if row.built else "  (was there)"
        print(f"{row.name:20} {row.bytes / 1e6:8.1f} MB  load {row.load_s:.2f} s  {error}  {opened}{state}")
    print(f"manifest  {Path(options.out) / 'manifest.json'}")
    return 0


def _finish(options: argparse.Namespace) -> int:
    from diffopt.engine_export import finish_engines

    built = finish_engines(Path(options.finish))
    if options.json:
        print_json({"ok": True, "out": options.finish, "built": built})
        return 0
    for name in built:
        print(f"{name:20} built")
    return 0


def _range(name: str, text: str | None) -> Axis | None:
    """Return what N, LEAST:MOST or LEAST:USUAL:MOST says; the usual one is the least where it is not given."""
    from diffopt.backends.base import Axis, BackendError

    if text is None:
        return Axis(name, 1, 1, 2) if name == "batch" else None
    try:
        numbers = [int(part) for part in text.split(":")]
        if len(numbers) > 3 or max(numbers) > LARGEST:
            raise ValueError(text)
        least, *middle, most = numbers if len(numbers) > 1 else numbers * 2
        return Axis(name, least, middle[0] if middle else least, most)
    except (ValueError, BackendError) as error:
        raise DiffoptError(
            f"{text!r} is no N, LEAST:MOST or LEAST:USUAL:MOST", where=f"--{name}", hint=f"like --{name} 1:4"
        ) from error
