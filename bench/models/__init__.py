"""Models that ship with diffopt, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from diffopt.bench.models.shapes import SHAPES
from diffopt.bench.models.shapes_dit import SHAPES_DIT
from diffopt.bench.models.shapes_edges import SHAPES_EDGES
from diffopt.bench.models.shapes_flow import SHAPES_FLOW
from diffopt.bench.models.shapes_pixart import SHAPES_PIXART
from diffopt.bench.models.shapes_v import SHAPES_V
from diffopt.bench.models.shapes_xl import SHAPES_XL
from diffopt.bench.models.words import WORDS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from diffopt.ir.description import PipelineDescription

    Images = npt.NDArray[np.float32]


class ImageReader(Protocol):
    """Judges images float32 [n, h, w, 3] in [0, 1] by their prompts; deterministic, changed by nothing."""

    def correct(self, images: Images, prompts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Say for each image whether it shows all that its prompt asks for."""
        ...

    def attributes_correct(self, images: Images, prompts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return for each image the share of what its prompt asks for that it shows."""
        ...

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        """Return one feature vector an image."""
        ...


class Builtin(Protocol):
    """A model that ships with diffopt: its directory, its baseline settings, its prompts and its scorer."""

    @property
    def name(self) -> str:
        """As the user writes it, `demo:shapes`."""
        ...

    @property
    def directory(self) -> Path:
        """A diffusers model directory."""
        ...

    @property
    def steps(self) -> int:
        """Of the baseline."""
        ...

    @property
    def guidance(self) -> float:
        """Of the baseline."""
        ...

    @property
    def height(self) -> int:
        """In pixels."""
        ...

    @property
    def width(self) -> int:
        """In pixels."""
        ...

    @property
    def arguments(self) -> Mapping[str, bool]:
        """What the pipeline's call needs beside steps, guidance and size."""
        ...

    def prompts(self, split: Literal["calibration", "search", "heldout"], count: int, seed: int = 0) -> list[str]:
        """Return `count` prompts of a split; those of two splits never overlap."""
        ...

    def inputs(self, prompts: Sequence[str]) -> dict[str, object]:
        """Return what a call is given for prompts: these, or what they stand for, or more beside them."""
        ...

    def scorer(self) -> ImageReader:
        """Load the network that judges images."""
        ...


BUILTINS: Mapping[str, Builtin] = {
    model.name: model
    for model in (SHAPES, SHAPES_FLOW, SHAPES_PIXART, SHAPES_XL, SHAPES_V, SHAPES_EDGES, SHAPES_DIT, WORDS)
}
"""Every model that can be trained here."""


def builtin(name: str) -> Builtin | None:
    """Return the built-in model of that name ("demo:shapes"), None when there is none with weights."""
    model = BUILTINS.get(name)
    return model if model is not None and (model.directory / "model_index.json").is_file() else None


def shipped() -> tuple[str, ...]:
    """Return the names of the models whose weights are there, in the order they are listed."""
    return tuple(name for name in BUILTINS if builtin(name) is not None)


def inputs_of(pipe: object, prompts: Sequence[str]) -> dict[str, object] | None:
    """Return what a pipeline of a built-in model's directory is given for prompts; None for any that takes prompts alone.

    A pipeline that takes prompts, whatever it was loaded from, says so by `takes_prompts`.
    """
    where = str(getattr(pipe, "name_or_path", ""))
    model = next((model for model in BUILTINS.values() if str(model.directory) == where), None)
    if model is None or getattr(pipe, "takes_prompts", False):
        return None
    given = model.inputs(prompts)
    return None if given.keys() == {"prompt"} else given


def describe(
    model: Builtin,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    height: int | None = None,
    width: int | None = None,
) -> PipelineDescription:
    """Describe a built-in model with its baseline's call; what is given takes the place of the baseline's own."""
    from diffopt.ir.source_directory import describe_directory

    described = describe_directory(
        model.directory,
        name=model.name.removeprefix("demo:"),
        steps=model.steps if steps is None else steps,
        guidance=model.guidance if guidance is None else guidance,
        height=model.height if height is None else height,
        width=model.width if width is None else width,
    )
    return replace(described, arguments={**described.arguments, **model.arguments})
