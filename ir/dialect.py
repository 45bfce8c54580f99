"""The `diffusion` dialect: a pipeline as components and one function that says what a call does.

Two kinds of thing stand in a module. *Structure* is operations with dataflow (encode, noise, denoise loops, predict,
guide, step, decode); *transforms* are an ordered list inside a component, each a runtime function of
`diffopt.backends` with its arguments, in order of application. Beside them, a *rewrite* names generated code that the
emitted text goes through.
"""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Dialect, Operation

from diffopt.ir.attributes import (
    AudioType,
    DataType,
    EmbeddingType,
    ImageType,
    LatentType,
    MaskType,
    PredictionType,
    ResidualsType,
    TextType,
    TimestepType,
    VideoType,
    from_attribute,
    to_attribute,
)
from diffopt.ir.component import ComponentOp, TransformOp
from diffopt.ir.conditioning import AddNoiseOp, BlendOp, CompressOp, ControlOp, FoldedOp
from diffopt.ir.dataflow import DecodeOp, EncodeOp, GuideOp, NoiseOp, PredictOp, StepOp
from diffopt.ir.description import DENOISERS
from diffopt.ir.loop import DenoiseOp, YieldOp, denoise_loop
from diffopt.ir.rewrite import RewriteOp

__all__ = [
    "AddNoiseOp",
    "AudioType",
    "BlendOp",
    "ComponentOp",
    "CompressOp",
    "ControlOp",
    "DataType",
    "DecodeOp",
    "DenoiseOp",
    "Diffusion",
    "EmbeddingType",
    "EncodeOp",
    "FoldedOp",
    "GuideOp",
    "ImageType",
    "LatentType",
    "MaskType",
    "NoiseOp",
    "PredictOp",
    "PredictionType",
    "ResidualsType",
    "RewriteOp",
    "StepOp",
    "TextType",
    "TimestepType",
    "TransformOp",
    "VideoType",
    "YieldOp",
    "components",
    "denoise_loop",
    "denoiser_of",
    "denoisers_of",
    "from_attribute",
    "loops",
    "only_plain",
    "scheduler_of",
    "stages",
    "steps_of",
    "to_attribute",
    "unrolled",
]

Diffusion = Dialect(
    "diffusion",
    [
        *(ComponentOp, TransformOp, EncodeOp, NoiseOp, PredictOp, GuideOp, StepOp, YieldOp, DenoiseOp, DecodeOp),
        *(CompressOp, AddNoiseOp, ControlOp, BlendOp, FoldedOp, RewriteOp),
    ],
    [
        *(TextType, EmbeddingType, LatentType, TimestepType, PredictionType, ImageType),
        *(VideoType, AudioType, MaskType, ResidualsType, DataType),
    ],
)


def components(module: ModuleOp) -> dict[str, ComponentOp]:
    """Return the components by name, in the order they stand in."""
    return {op.sym_name.data: op for op in module.body.block.ops if isinstance(op, ComponentOp)}


def loops(module: ModuleOp) -> tuple[DenoiseOp, ...]:
    """Return the denoise loops in order."""
    found: list[DenoiseOp] = []
    _add_loops(module, found)
    return tuple(found)


def _add_loops(op: Operation, found: list[DenoiseOp]) -> None:
    # Asked for at every turn of a search: xDSL's own `walk`, a generator in a generator, takes three times as long.
    for region in op.regions:
        for block in region.blocks:
            for inner in block.ops:
                if isinstance(inner, DenoiseOp):
                    found.append(inner)
                if inner.regions and not isinstance(inner, ComponentOp):
                    _add_loops(inner, found)


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


def denoisers_of(module: ModuleOp) -> tuple[ComponentOp, ...]:
    """Return every component that the loops ask for predictions, in the order they are asked."""
    named = components(module)
    asked = [predict.component.root_reference.data for loop in loops(module) for predict in loop.predicts]
    return tuple(named[name] for name in dict.fromkeys(asked) if name in named)


def stages(module: ModuleOp) -> tuple[tuple[DenoiseOp, ...], ...]:
    """Return the loops by stage: a loop that does not start from the one before it opens a new one."""
    found: list[list[DenoiseOp]] = []
    for loop in loops(module):
        if found and loop.initial is found[-1][-1].result:
            found[-1].append(loop)
        else:
            found.append([loop])
    return tuple(map(tuple, found))


def unrolled(module: ModuleOp) -> bool:
    """Tell whether the loops are single steps with their constants."""
    return any(loop.timestep is not None for loop in loops(module))


def only_plain(module: ModuleOp, *, distilled: bool = False, controls: bool = False) -> str:
    """Return why a module is more than one loop over a whole schedule; empty for one that is not.

    Passes that count a denoiser's calls or split its loop are made for the plain kind: each step of one schedule asks
    one denoiser about an image latent, given embeddings, guided in one batch.

    distilled: guidance that is given to the denoiser is plain too; so it is to caches, which leave guidance as it is.
    controls: what a ControlNet adds to a UNet is plain too; so it is to what follows a plan of steps, which passes it on.
    """
    found = loops(module)
    if len(stages(module)) > 1:
        return "the call has several stages"
    if any(loop.side is not None for loop in found):
        return "the loops divide the schedule between experts"
    if found and found[0].bounds[0] != 0:
        return f"the call starts at step {found[0].bounds[0]} of the schedule"
    if steps_of(module) != scheduler_of(module).values.get("steps"):
        return "the call ends before its schedule does"
    if any(loop.guide is not None and loop.guide.in_turn is not None for loop in found):
        return "guidance asks the denoiser twice in turn"
    if asks_more(module, controls=controls):
        return "the loop asks more than the denoiser"
    known = EmbeddingType | ResidualsType if controls else EmbeddingType
    for predict in (predict for loop in found for predict in loop.predicts):
        if predict.scale is not None and not distilled:
            return "guidance is distilled into the denoiser"
        if predict.sample.type != LatentType():
            return "the latent is not of an image"
        if any(not isinstance(value.type, known) for value in predict.conditions):
            return "the denoiser is given more than embeddings"
    extra = components(module)["pipeline"].values.get("extra_guidance")
    return f"guidance has more terms: {', '.join(map(str, extra))}" if isinstance(extra, list) else ""


def asks_more(module: ModuleOp, *, controls: bool = False) -> bool:
    """Tell whether a step asks more than the denoiser; with `controls`, a ControlNet beside a UNet is no more."""
    named = components(module)
    pair = ("diffusers.ControlNetModel", "diffusers.UNet2DConditionModel")
    for op in module.walk():
        if isinstance(op, BlendOp):
            return True
        if isinstance(op, ControlOp):
            asked = named[op.component.root_reference.data].class_name.data
            if not controls or (asked, denoiser_of(module).class_name.data) != pair:
                return True
    return False


def scheduler_of(module: ModuleOp) -> ComponentOp:
    """Return the scheduler component of the last stage, which makes what is decoded."""
    return components(module)[stages(module)[-1][0].component.root_reference.data]


def steps_of(module: ModuleOp) -> int:
    """Return the step at which the last loop ends: the number of steps, unless the call ends early."""
    return loops(module)[-1].bounds[1]
