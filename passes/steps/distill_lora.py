"""Sample in a few steps with the adapter of a distilled model that the user names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr

from diffopt.ir.description import JSON
from diffopt.ir.dialect import denoiser_of, loops, scheduler_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.guidance.guidance_off import GuidanceOff
from diffopt.passes.steps.reduce_steps import ReduceSteps
from diffopt.passes.steps.solvers import is_flow

SAMPLERS: Mapping[str, tuple[str, dict[str, JSON]]] = {
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
    "lightning": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "hyper-sd": ("DDIMScheduler", {"timestep_spacing": "trailing"}),
}
"""The sampler that each kind of adapter was distilled for, with its configuration."""


@dataclass(frozen=True)
class DistillLora(DiffusionPass):
    """Sample in a few steps with the adapter of a distilled model that the user names.

    What it does: loads the LoRA (`adapter`, a directory or hub id, and `weight` in it), folds it into the weights, takes the
    sampler that its `kind` was distilled for, shortens the loop to `steps` and takes guidance out, which is distilled in.
    When it helps: most of all that is here, where there is such an adapter for the model: four steps instead of fifty, each
    of half the cost.
    Refuses when: no adapter is named, the model is a flow or no UNet, there are no fewer steps than asked for, or a schedule
    is fixed already.
    What it costs: tier traded: another model's images; less variety; LCM and TCD draw noise in their steps, so no
    whole-pipeline engine is made of them.
    References: LCM-LoRA arXiv 2311.05556; TCD arXiv 2402.19159; SDXL-Lightning arXiv 2402.13929; Hyper-SD arXiv 2404.13686.
    """

    name = "distill-lora"
    family = Family.STEPS
    tier = Tier.TRADED
    examples = (
        Example(
            "distill-lora{adapter=models/lcm-lora}",
            expect='diffusion.transform "distill_lora" {adapter = "models/lcm-lora"',
        ),
        Example("distill-lora", refusal="name the adapter"),
        Example("distill-lora{adapter=a},distill-lora{adapter=b}", refusal="cannot have distill-lora twice"),
        Example("distill-lora{adapter=a}", refusal="is for unets", model="flow"),
    )
    before = ("family:quantization", "family:compilation", "fuse-qkv", "hoist-cross-attention", "cast-layerwise")
    one_of = "folded-adapters"
    architectures = ("unet",)
    packages = MappingProxyType({"peft": "lora"})
    on_request = True

    adapter: str = ""
    kind: Literal["lcm", "tcd", "lightning", "hyper-sd"] = "lcm"
    steps: int = 4
    weight: str = ""

    def check_options(self) -> None:
        for option in ("adapter", "weight"):
            text = getattr(self, option)
            legal = text.isprintable() and not set(text) & set("\"'{}")
            self.require(legal, option, "a path, hub id or file name without quotes or braces")
        self.require(1 <= self.steps <= 16, "steps", "from 1 to 16")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield from ()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        if not self.adapter.strip():
            return Refusal("name the adapter: distill-lora{adapter=models/lcm-lora}", "@unet", "asked-for")
        if any(t.transform.data == "distill_lora" for t in denoiser_of(module).transforms):
            return Refusal("cannot have distill-lora twice: one model is distilled once", "@unet", "one-of")
        if is_flow(scheduler_of(module)):
            return Refusal(
                f"a {self.kind} adapter is for models of noise, and this is a flow", "@scheduler", "wrong-kind"
            )
        if (why := ReduceSteps(steps=self.steps, solver="own").refuse(module)) is not None:
            return why
        guided = any(loop.guide is not None for loop in loops(module))
        return GuidanceOff().refuse(module) if guided else None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        ReduceSteps(steps=self.steps, solver="own").apply(ctx, op)
        if any(loop.guide is not None for loop in loops(op)):
            GuidanceOff().apply(ctx, op)
        scheduler, (sampler, overrides) = scheduler_of(op), SAMPLERS[self.kind]
        scheduler.properties["class_name"] = StringAttr(f"diffusers.{sampler}")
        scheduler.set_value("overrides", {**overrides})
        for touched in (scheduler, *loops(op)):
            touched.attributes["origin"] = StringAttr(self.name)
        arguments: dict[str, JSON] = {"adapter": self.adapter}
        arguments |= {"weight_name": self.weight} if self.weight else {}
        denoiser_of(op).add_transform("distill_lora", arguments, self.name)
