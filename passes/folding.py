"""Which pipelines' calls become one program, and what of a call becomes engines."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import EncodeOp, components, only_plain

FOLDED = (
    "diffusers.StableDiffusionPipeline",
    "diffusers.StableDiffusionXLPipeline",
    "diffusers.StableDiffusion3Pipeline",
    "diffusers.PixArtAlphaPipeline",
    "diffusers.PixArtSigmaPipeline",
)
"""Pipelines whose calls were seen to become one program: `tests/backends/runtime/test_fold.py`."""


def why_not_folded(module: ModuleOp) -> str:
    """Return why a module's call does not become one program; empty where it does."""
    pipeline = components(module)["pipeline"].class_name.data
    if pipeline not in FOLDED:
        return f"one program is made of calls of {', '.join(map(_short, FOLDED))}, and not of {_short(pipeline)} yet"
    return only_plain(module)


def text_encoders(module: ModuleOp) -> list[str]:
    """Return the components that encode a call's texts, in their order."""
    asked = {op.component.root_reference.data for op in module.walk() if isinstance(op, EncodeOp)}
    return [name for name in components(module) if name in asked and name.startswith("text_encoder")]


def _short(name: str) -> str:
    return name.rpartition(".")[2]
