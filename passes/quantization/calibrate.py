"""Let NNCF quantize the denoiser's engine, by inputs recorded over the timesteps of real requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Self, get_args

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoiser_of, denoisers_of, only_plain, steps_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier, unlike_torch

Mode = Literal["weights", "hybrid", "full"]


@dataclass(frozen=True)
class Calibrate(DiffusionPass):
    """Let NNCF quantize the denoiser's engine, by inputs recorded over the timesteps of real requests.

    What it does: records `samples` of the denoiser's calls, spread over the steps of four requests, and hands them to the
    OpenVINO engine that export builds behind it: `full` computes in 8 bits, with ranges seen in the samples; `hybrid` does so
    for convolutions and stores the other layers' weights in 8 bits; `weights` stores all of them and needs no ranges.
    When it helps: on processors with instructions for 8 bits (VNNI, AMX); elsewhere in memory alone.
    Refuses when: the denoiser is no UNet, its weights are quantized or in 16 bits, it is compiled or exported
    already, or the call is more than a plain loop. By itself it changes nothing: an export of the denoiser, with
    OpenVINO, must follow.
    What it costs: tier near to traded: activations differ from step to step, and one range must hold for all; the recorded
    requests, and minutes for large networks, when the engine is built.
    References: NNCF post-training quantization; Q-Diffusion arXiv 2302.04304; PTQ4DM arXiv 2211.15736.
    """

    name = "calibrate"
    family = Family.QUANTIZATION
    tier = Tier.NEAR
    examples = (
        Example("calibrate{mode=full}", expect='diffusion.transform "calibrate" {mode = "full"'),
        Example("quantize,calibrate", refusal="cannot have both quantize and calibrate"),
        Example("export,calibrate", refusal="calibrate must come before export"),
    )
    before = ("family:compilation",)
    one_of = "weights"
    architectures = ("unet",)
    packages = MappingProxyType({"nncf": "cpu", "openvino": "cpu"})
    excludes = MappingProxyType({"compile": "compiled code is quantized otherwise: by quantize"})

    mode: Mode = "hybrid"
    samples: int = 32

    def check_options(self) -> None:
        self.require(4 <= self.samples <= 512, "samples", "from 4 to 512")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        for mode in get_args(Mode):
            yield cls(mode=mode)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        if (why := unlike_torch(module)) is not None:
            return why
        if reason := only_plain(module):
            return Refusal(f"{reason}: engines of that are not made yet", "diffusion.denoise", "wrong-kind")
        denoiser = denoiser_of(module)
        if not denoiser.class_name.data.endswith(".UNet2DConditionModel"):
            reason = f"{denoiser.class_name.data} is no UNet2DConditionModel"
            return Refusal(reason, f"@{denoiser.sym_name.data}", "wrong-kind")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for denoiser in denoisers_of(op):
            arguments = {"mode": self.mode, "samples": self.samples, "request_steps": min(steps_of(op), MOST)}
            denoiser.add_transform("calibrate", {**arguments}, self.name)


MOST = 50
"""Steps of the recorded requests at the most."""
