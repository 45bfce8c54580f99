"""Read a denoiser's call as a row of tensors and what else it was given, whatever its class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from diffopt.backends.base import Tensors

UNET_INPUTS = ("sample", "timestep", "encoder_hidden_states")
SAMPLES = ("sample", "hidden_states")
"""Names of the latent among a denoiser's arguments."""


@dataclass(frozen=True)
class CallShape:
    """What calls of a denoiser are like: names of the tensors, which of them carry the batch, and all other arguments.

    A tensor inside an argument that is a dictionary is named `argument.key`, in one that is a row of tensors `argument.[0]`.
    """

    names: tuple[str, ...] = UNET_INPUTS
    batched: tuple[bool, ...] = (True, False, True)
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, tensors: Tensors) -> dict[str, Any]:
        """Return the keyword arguments of a call with these tensors, `return_dict` left out."""
        given: dict[str, Any] = {
            name: dict(value) if isinstance(value, dict) else value for name, value in self.fixed.items()
        }
        for name, tensor in zip(self.names, tensors, strict=True):
            outer, _, key = name.partition(".")
            if key.startswith("["):
                given[outer] = (*given.get(outer, ()), tensor)
            elif key:
                given.setdefault(outer, {})[key] = tensor
            else:
                given[name] = tensor
        return given

    def half(self, tensors: Tensors) -> Tensors:
        """Return the tensors of the conditional half alone, which pipelines put last."""
        return tuple(t.chunk(2)[1] if b else t for t, b in zip(tensors, self.batched, strict=True))

    def halves(self, tensors: Tensors) -> tuple[Tensors, Tensors]:
        """Return the tensors of both halves."""
        first = tuple(t.chunk(2)[0] if b else t for t, b in zip(tensors, self.batched, strict=True))
        return first, self.half(tensors)

    def same_as(self, other: CallShape) -> bool:
        """Tell whether calls of both shapes can be answered by one engine."""
        return (
            self.names == other.names
            and self.batched == other.batched
            and self.fixed.keys() == other.fixed.keys()
            and all(_same(value, other.fixed[name]) for name, value in self.fixed.items())
        )


class DenoiserModule(torch.nn.Module):
    """A way to run a denoiser, as a module from tensors to tensors; `shape` says what the tensors are."""

    def __init__(self, denoiser: torch.nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.shape = CallShape()
        self._method = denoiser.forward

    def run(self, tensors: Tensors) -> torch.Tensor:
        """Run the denoiser as it was when this was made."""
        out: torch.Tensor = self._method(**self.shape.arguments(tensors), return_dict=False)[0]
        return out


class WholePass(DenoiserModule):
    """The whole denoiser, and nothing else."""

    def forward(self, *inputs: torch.Tensor) -> Tensors:
        return (self.run(inputs),)


def read_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[CallShape, Tensors] | str:
    """Return the shape of a denoiser's call and its tensors, or the argument that cannot be taken apart."""
    given = dict(inspect.signature(function).bind(*args, **kwargs).arguments)
    given.pop("return_dict", None)
    sample = next((given[name] for name in SAMPLES if name in given), None)
    if not isinstance(sample, torch.Tensor):
        return "the latent"
    found: dict[str, torch.Tensor] = {}
    fixed: dict[str, Any] = {}
    for name, value in given.items():
        if name == "timestep" and isinstance(value, int | float):
            found[name] = torch.tensor(value, device=sample.device)
        elif isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(value, dict):
            found |= {f"{name}.{key}": item for key, item in value.items() if isinstance(item, torch.Tensor)}
            rest = {key: item for key, item in value.items() if not isinstance(item, torch.Tensor)}
            if _holds_tensors(rest):
                return name
            if rest or not value:
                fixed[name] = rest
        elif isinstance(value, list | tuple) and value and all(isinstance(item, torch.Tensor) for item in value):
            found |= {f"{name}.[{index}]": item for index, item in enumerate(value)}
        elif _holds_tensors(value):
            return name
        elif value is not None:
            fixed[name] = value
    batched = tuple(value.ndim > 0 and value.shape[0] == sample.shape[0] for value in found.values())
    return CallShape(tuple(found), batched, fixed), tuple(found.values())


def denoiser_result(denoiser: Any, out: torch.Tensor, kwargs: Mapping[str, Any]) -> Any:
    """Return what a denoiser's call hands out, given its tensor and the call's keyword arguments."""
    if kwargs.get("return_dict", True) is False:
        return (out,)
    from diffusers.models.modeling_outputs import Transformer2DModelOutput
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

    kind = UNet2DConditionOutput if hasattr(denoiser, "up_blocks") else Transformer2DModelOutput
    return kind(sample=out)


def _holds_tensors(value: Any) -> bool:
    return any(isinstance(leaf, torch.Tensor) for leaf in torch.utils._pytree.tree_leaves(value))


def _same(one: Any, other: Any) -> bool:
    return one is other or bool(type(one) is type(other) and one == other)
