"""The `diffusion` dialect: a pipeline as components and one function that says what a call does.

Two kinds of thing stand in a module. *Structure* is operations with dataflow (encode, noise, denoise loops, predict,
guide, step, decode); *transforms* are an ordered list inside a component, each a runtime function of
`diffopt.backends` with its arguments, in order of application.
"""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Dialect

from diffopt.ir.attributes import (
    EmbeddingType,
    ImageType,
    LatentType,
    PredictionType,
    TextType,
    TimestepType,
    from_attribute,
    to_attribute,
)
from diffopt.ir.component import ComponentOp, TransformOp
from diffopt.ir.dataflow import (
    DecodeOp,
    DenoiseOp,
    EncodeOp,
    GuideOp,
    NoiseOp,
    PredictOp,
    StepOp,
    YieldOp,
    denoise_loop,
)
from diffopt.ir.description import DENOISERS

__all__ = [
    "ComponentOp",
    "DecodeOp",
    "DenoiseOp",
    "Diffusion",
    "EmbeddingType",
    "EncodeOp",
    "GuideOp",
    "ImageType",
    "LatentType",
    "NoiseOp",
    "PredictOp",
    "PredictionType",
    "StepOp",
    "TextType",
    "TimestepType",
    "TransformOp",
    "YieldOp",
    "components",
    "denoise_loop",
    "denoiser_of",
    "from_attribute",
    "loops",
    "scheduler_of",
    "steps_of",
    "to_attribute",
]

Diffusion = Dialect(
    "diffusion",
    [ComponentOp, TransformOp, EncodeOp, NoiseOp, PredictOp, GuideOp, StepOp, YieldOp, DenoiseOp, DecodeOp],
    [TextType, EmbeddingType, LatentType, TimestepType, PredictionType, ImageType],
)


def components(module: ModuleOp) -> dict[str, ComponentOp]:
    """Return the components by name, in the order they stand in."""
    return {op.sym_name.data: op for op in module.body.block.ops if isinstance(op, ComponentOp)}


def loops(module: ModuleOp) -> tuple[DenoiseOp, ...]:
    """Return the denoise loops in order."""
    return tuple(op for op in module.walk() if isinstance(op, DenoiseOp))


def denoiser_of(module: ModuleOp) -> ComponentOp:
    """Return the component that the loops ask for predictions.

    Raises:
        KeyError: the module has none; the verifier reports that first.
    """
    named = components(module)
    for loop in loops(module):
        for predict in loop.predicts:
            return named[predict.component.root_reference.data]
    return named[next(name for name in DENOISERS if name in named)]


def scheduler_of(module: ModuleOp) -> ComponentOp:
    """Return the scheduler component of the first loop."""
    return components(module)[loops(module)[0].component.root_reference.data]


def steps_of(module: ModuleOp) -> int:
    """Return the number of denoising steps."""
    return loops(module)[-1].bounds[1]
