"""Follow a table of what each step of a request computes: guided or not, in full or with cached features."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import Attachment, Call, Proceed, attachment, component_name

if TYPE_CHECKING:
    import torch

    from diffopt.backends.runtime.leaf import Leaf

Pipe = TypeVar("Pipe")
PLAN = "_diffopt_step_plan"


def follow_step_plan(
    pipe: Pipe,
    *,
    component: str = "unet",
    full: Sequence[int] | None = None,
    guided: Sequence[int] | None = None,
    steps: int,
    branch: int = 0,
) -> Pipe:
    """Make the denoiser follow a plan for requests of `steps` steps; other requests run as if there were none.

    full: steps (0-based, e.g. `range(0, 50, 3)`) computed in full, the others reuse deep features; None for all.
    guided: steps with classifier-free guidance, the others run the conditional half alone; None for all.
    branch: how many up layers besides the last a step with reused features still computes.
    Raises BackendError if the plan does not fit the denoiser.
    """
    from diffopt.backends.runtime.feature_cache import FullPass, ShallowPass, refuse_feature_cache
    from diffopt.backends.runtime.leaf import Closed, Leaf

    name = component_name(pipe, component)
    denoiser, state = getattr(pipe, name), attachment(pipe)
    if getattr(denoiser, PLAN, None) is not None:
        raise BackendError(f"{name} follows a step plan already", "put guidance and cache into one plan")
    if state.noted(name, "export") or state.noted(name, "compile"):
        raise BackendError(f"{name} is an engine or compiled already", "follow_step_plan comes before")
    plan_full, plan_guided = _table(full, steps, "full"), _table(guided, steps, "guided")
    inputs, batched = ("sample", "timestep", "encoder_hidden_states"), (True, False, True)
    if all(plan_full):
        leaves = {
            "whole": Leaf(
                f"{name}", Closed(denoiser, denoiser.forward, inputs, {"return_dict": False}), inputs, batched
            )
        }
    else:
        refuse_feature_cache(denoiser, branch)
        if not plan_full[0]:
            raise BackendError("step 0 must be computed in full: there are no features before it")
        leaves = {
            "full": Leaf(f"{name}_full", FullPass(denoiser, branch), inputs, batched),
            "shallow": Leaf(f"{name}_shallow", ShallowPass(denoiser, branch), (*inputs, "deep"), (*batched, True)),
        }
    for leaf in leaves.values():
        leaf.module.eval()
    plan = StepPlan(pipe, state, denoiser, leaves, plan_full, plan_guided)
    denoiser.__dict__[PLAN] = plan

    @functools.wraps(denoiser.forward)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return plan.forward(*args, **kwargs)

    denoiser.__dict__["forward"] = forward
    state.layers.append(plan.request)
    state.note(name, "follow_step_plan", full=[*map(int, plan_full)], guided=[*map(int, plan_guided)], branch=branch)
    if not all(plan_full):
        state.witnesses.append(plan.cache_witness)
    if not all(plan_guided):
        state.witnesses.append(plan.guidance_witness)
    return pipe


class StepPlan:
    """The plan and where the current request stands in it. Reset at the start and the end of each request."""

    def __init__(
        self,
        pipe: Any,
        state: Attachment,
        denoiser: Any,
        leaves: dict[str, Leaf],
        full: tuple[bool, ...],
        guided: tuple[bool, ...],
    ) -> None:
        self.leaves = leaves
        self.full = full
        self.guided = guided
        self._pipe = pipe
        self._state = state
        self._original = denoiser.forward
        self._counts = {"steps": 0, "shallow": 0, "unguided": 0}
        self._inside = False
        self._active: bool | None = None
        self._step = 0
        self._deep: torch.Tensor | None = None

    def request(self, proceed: Proceed, call: Call) -> Any:
        """Run one pipeline call with a fresh plan, and leave nothing behind, also when it raises."""
        self._reset(inside=True)
        try:
            return proceed(call)
        finally:
            self._reset(inside=False)

    def forward(
        self, sample: torch.Tensor, timestep: Any, encoder_hidden_states: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Take the place of the denoiser's forward."""
        extra = [name for name, value in kwargs.items() if value is not None and name != "return_dict"]
        if not self._inside or args or extra or not self._follows():
            if self._inside and (args or extra):
                self._active = False
                self._state.say_once(
                    f"the step plan is off: it does not know {(extra or ['positional conditioning'])[0]}"
                )
            return self._original(sample, timestep, encoder_hidden_states, *args, **kwargs)
        step, self._step = self._step, self._step + 1
        out = self._run(step, sample, self._tensor(timestep, sample), encoder_hidden_states)
        if kwargs.get("return_dict", True):
            from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

            return UNet2DConditionOutput(sample=out)
        return (out,)

    def count_folded(self, requests: int) -> None:
        """Count requests an engine answered that follows this plan by construction."""
        self._counts["steps"] += requests * len(self.full)
        self._counts["shallow"] += requests * self.full.count(False)
        self._counts["unguided"] += requests * self.guided.count(False)

    def cache_witness(self) -> Witness:
        counts = self._counts
        detail = f"{counts['shallow']} of {counts['steps']} denoiser calls with cached features"
        return Witness("cache-features", counts["shallow"], detail)

    def guidance_witness(self) -> Witness:
        counts = self._counts
        detail = f"{counts['unguided']} of {counts['steps']} denoiser calls without the unconditional half"
        return Witness("guidance-window", counts["unguided"], detail)

    def _follows(self) -> bool:
        """Tell whether the plan is made for this request; asked anew at its first denoiser call."""
        if self._active is None:
            count = len(self._pipe.scheduler.timesteps)
            self._active = count == len(self.full)
            if not self._active:
                self._state.say_once(f"the step plan is off: made for {len(self.full)} steps, asked for {count}")
        return self._active and self._step < len(self.full)

    def _run(self, step: int, sample: torch.Tensor, timestep: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        import torch

        guidance = bool(getattr(self._pipe, "do_classifier_free_guidance", False))
        half = guidance and not self.guided[step] and sample.shape[0] % 2 == 0
        self._count("steps")
        if half:
            self._count("unguided")
            # Pipelines put the conditional half last. Returned twice, u + s (c - u) = c.
            out = self._denoise(step, sample.chunk(2)[1], timestep, encoded.chunk(2)[1])
            return torch.cat([out, out])
        return self._denoise(step, sample, timestep, encoded)

    def _denoise(self, step: int, sample: torch.Tensor, timestep: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        if "whole" in self.leaves:
            return self.leaves["whole"](sample, timestep, encoded)[0]
        deep = self._deep
        if deep is not None and deep.shape[0] == 2 * sample.shape[0]:
            deep = self._deep = deep.chunk(2)[1]
        if self.full[step] or deep is None or deep.shape[0] != sample.shape[0]:
            out, self._deep = self.leaves["full"](sample, timestep, encoded)
            return out
        self._count("shallow")
        return self.leaves["shallow"](sample, timestep, encoded, deep)[0]

    def _count(self, what: str) -> None:
        self._counts[what] += self._state.counting

    def _tensor(self, timestep: Any, sample: torch.Tensor) -> torch.Tensor:
        import torch

        return timestep if isinstance(timestep, torch.Tensor) else torch.tensor(timestep, device=sample.device)

    def _reset(self, *, inside: bool) -> None:
        self._inside = inside
        self._active = None
        self._step = 0
        self._deep = None


def _table(chosen: Sequence[int] | None, steps: int, name: str) -> tuple[bool, ...]:
    if chosen is None:
        return (True,) * steps
    outside = [step for step in chosen if not 0 <= step < steps]
    if outside:
        raise BackendError(f"{name}: there is no step {outside[0]} among {steps}")
    return tuple(step in set(chosen) for step in range(steps))
