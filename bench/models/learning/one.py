"""Train one model: scenes from disk, as many steps as the time allows, then how well its pipeline follows prompts."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from diffopt.bench.models.learning.drawing_pool import Draw, Drawn, draw_shapes, draw_single, draw_words
from diffopt.bench.models.learning.loop import Say, Stop, fit
from diffopt.bench.models.learning.recipe import Parts, Recipe
from diffopt.bench.models.shapes_dit.recipe import RECIPE as DIT
from diffopt.bench.models.shapes_edges.recipe import RECIPE as EDGES
from diffopt.bench.models.shapes_flow.recipe import RECIPE as FLOW
from diffopt.bench.models.shapes_pixart.recipe import RECIPE as PIXART
from diffopt.bench.models.shapes_v.recipe import RECIPE as V
from diffopt.bench.models.shapes_xl.recipe import RECIPE as XL
from diffopt.bench.models.words.recipe import RECIPE as WORDS

if TYPE_CHECKING:
    import torch
    from torch import nn

Images = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pool:
    """Scenes that several models learn from."""

    name: str
    draw: Draw
    seed: int


POOLS = {
    pool.name: pool
    for pool in (Pool("words", draw_words, 43), Pool("shapes", draw_shapes, 41), Pool("single", draw_single, 42))
}
RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (FLOW, PIXART, WORDS, XL, V, EDGES, DIT)}
_EVALUATE_S = 35.0
"""Kept at the end for the evaluation, but not more than two fifths of the time."""
STEPS = (50, 10)


def folder_of(recipe: Recipe) -> Path:
    """Return the package folder of a recipe's model."""
    module = sys.modules[type(recipe).__module__]
    return Path(str(module.__file__)).resolve().parent


def judge_of(recipe: Recipe) -> Any:
    """Return the built-in model that a recipe makes, with its prompts and its scorer."""
    from diffopt.bench.models import BUILTINS

    folder = folder_of(recipe)
    return next(model for model in BUILTINS.values() if model.directory.parent == folder)


def train_one(
    name: str,
    work: Path,
    deadline: float,
    device: str,
    *,
    prompts: int,
    batch: int = 0,
    recorded: bool = True,
    further: bool = False,
) -> None:
    """Train until shortly before `deadline` (seconds since the epoch), write `work`/NAME.safetensors, evaluate.

    further: go on from the weights that are there; the log goes on, too.
    """
    import torch

    stop = Stop(recorded)
    recipe = replace(RECIPES[name], batch=batch) if batch else RECIPES[name]
    log, stored = work / f"{name}.log", work / f"{name}.safetensors"
    further = further and stored.exists()
    if recorded and not further:
        log.unlink(missing_ok=True)

    def say(text: str) -> None:
        with log.open("a") as file:
            file.write(f"{time.strftime('%H:%M:%S', time.gmtime())} {text}\n")
        print(text, flush=True)

    versions = " ".join(f"{package} {version(package)}" for package in ("torch", "diffusers", "transformers"))
    chip = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    say(f"{name}: {versions}, {chip}, beside other work; batch {recipe.batch}, rate {recipe.rate}, seed {recipe.seed}")
    place = torch.device(device)
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(2 if device == "cuda" else len(os.sched_getaffinity(0)))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    begun = load_parts(recipe, stored) if further else recipe.blank()
    parts = {part: network.to(place) for part, network in begun.items()}
    drawn = Drawn.load(work / recipe.pool)
    left = deadline - time.time()
    left -= min(_EVALUATE_S, 0.4 * left)
    if not further:
        left = recipe.prepare(drawn, parts, place, left, say, stop)
    started = time.monotonic()
    feed = recipe.feed(drawn, parts, place)
    left -= time.monotonic() - started
    say(f"{len(feed.clean)} examples ready in {time.monotonic() - started:.0f} s; {left:.0f} s for the denoiser")

    def keep(mean: nn.Module) -> None:
        save_parts({**parts, recipe.component: recipe.finished(mean)}, stored)

    network = recipe.begun(parts[recipe.component]).to(place)
    if place.type == "cuda" and recipe.component == "unet":
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    mean = fit(
        network,
        lambda net: recipe.loss(net, feed),
        seconds=max(left, 1.0),
        rate=recipe.rate,
        say=say,
        stop=stop,
        keep=keep,
        half=place.type == "cuda",
        decay=recipe.decay,
    )
    keep(mean)
    say(f"wrote {stored.name}, {stored.stat().st_size / 1e6:.2f} MB")
    try:
        evaluate(recipe, load_parts(recipe, stored), place, prompts, say)
    except Exception as error:  # the weights are written; what they are worth can be measured later
        say(f"not evaluated: {type(error).__name__}: {error}")
        raise


def evaluate(recipe: Recipe, parts: Parts, device: torch.device, prompts: int, say: Say) -> None:
    """Say how many of the held-out prompts the stored weights follow, in 50 steps and in fewer."""
    judge = judge_of(recipe)
    pipeline = recipe.pipeline(parts).to(device)
    pipeline.set_progress_bar_config(disable=True)
    texts = judge.prompts("heldout", prompts)
    scorer = recipe.scorer(parts)
    for steps in STEPS:
        started = time.monotonic()
        images = generate(recipe, pipeline, texts, steps)
        right = scorer.correct(images, texts)
        attributes = scorer.attributes_correct(images, texts)
        say(
            f"{recipe.name}: {steps} steps: {100 * right.mean():.1f} % of {prompts} held-out prompts right in everything,"
            f" attributes {100 * attributes.mean():.2f} %, {time.monotonic() - started:.1f} s"
        )


def generate(recipe: Recipe, pipeline: Any, prompts: Sequence[str], steps: int, batch: int = 500) -> Images:
    """Return images float32 [n, 64, 64, 3] in [0, 1]; prompt i starts from the noise of seed i."""
    import torch

    made = []
    for start in range(0, len(prompts), batch):
        chosen = prompts[start : start + batch]
        seeds = [torch.Generator().manual_seed(start + index) for index in range(len(chosen))]
        given = recipe.call(chosen)
        result = pipeline(**given, num_inference_steps=steps, generator=seeds, output_type="np")
        made.append(np.asarray(result.images, dtype=np.float32))
    return np.concatenate(made)


def save_parts(parts: Parts, path: Path) -> None:
    """Store the parts as float16 in one safetensors file, each weight under its part's name."""
    import torch
    from safetensors.torch import save_file

    state = {
        f"{part}.{name}": (value.to(torch.float16) if value.is_floating_point() else value).cpu().contiguous().clone()
        for part, network in parts.items()
        for name, value in network.state_dict().items()
    }
    fresh = path.with_suffix(".new")
    save_file(state, fresh)
    fresh.replace(path)


def load_parts(recipe: Recipe, path: Path) -> Parts:
    """Load what `save_parts` stored, as float32 on the CPU."""
    from safetensors.torch import load_file

    state = load_file(path)
    parts = recipe.blank()
    for part, network in parts.items():
        mine = {name.removeprefix(f"{part}."): v for name, v in state.items() if name.startswith(f"{part}.")}
        network.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in mine.items()})
        network.eval()
    return parts
