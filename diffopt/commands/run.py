"""`diffopt run`: make an image with an artifact."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from diffopt.commands import ARTIFACT, quiet_libraries
from diffopt.ir.errors import DiffoptError

TEXT = "make an image with an artifact"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MOVING_SUFFIXES = (".png", ".gif", ".webp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("artifact", metavar="ARTIFACT", help=ARTIFACT)
    parser.add_argument("--prompt", required=True, help="what to draw")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    parser.add_argument("--model", metavar="PATH", help="where the model directory stands, if it has moved")
    parser.add_argument(
        "--outside", choices=("torch", "raise"), default="torch",
        help="what answers calls that an engine was not made for (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("-o", "--out", default="image.png", help="default: %(default)s")


def _save_video(frames: Any, out: Path) -> None:
    """Write the frames of a video as one animated image, eight a second."""
    if out.suffix and out.suffix.lower() not in MOVING_SUFFIXES:
        raise DiffoptError("the pipeline makes videos", where=str(out), hint="give a .png, .gif or .webp")
    pictures = list(frames)
    if not hasattr(pictures[0], "save"):
        from diffusers.image_processor import VaeImageProcessor

        pictures = VaeImageProcessor.numpy_to_pil(frames)
    style = None if out.suffix else "PNG"
    pictures[0].save(out, format=style, save_all=True, append_images=pictures[1:], duration=125, loop=0)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from diffopt.artifact import Artifact, load

    out = Path(options.out)
    if out.suffix and out.suffix.lower() not in IMAGE_SUFFIXES:
        raise DiffoptError(f"no image format is called {out.suffix}", where=str(out), hint="give a .png or .jpg")
    if not options.prompt.strip():
        raise DiffoptError("the prompt is empty", where="--prompt")
    if not out.resolve().parent.is_dir():
        raise DiffoptError("no such folder", where=str(out.parent), hint="make it, or give another -o")
    Artifact.open(options.artifact)  # before the libraries are imported, which takes seconds
    with quiet_libraries():
        import torch

        pipe = load(options.artifact, model=options.model, outside=options.outside)
    pipe.set_progress_bar_config(disable=True)

    made = pipe(options.prompt, generator=torch.Generator("cpu").manual_seed(options.seed))
    if hasattr(made, "images"):
        made.images[0].save(out, format=None if out.suffix else "PNG")
    else:
        _save_video(made.frames[0], out)
    sys.stdout.write(f"{out}\n")
    return 0
