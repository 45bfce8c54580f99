"""Listen to one ordinary request: what the denoiser was given, and what became of its answer, at each step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from diffopt.backends.base import Tensors

if TYPE_CHECKING:
    import torch

    from diffopt.backends.runtime.denoiser_call import CallShape
    from diffopt.backends.runtime.linear_schedule import Recurrence

ROUNDINGS = 8.0
"""How many roundings of the pipeline's dtype a step may differ from what was foreseen."""


@dataclass
class Recording:
    """What one request showed. Filled by the hooks of `capture_step`, then asked whether a loop can stand for it.

    scheduler: a copy, as it was before the first step.
    shape, tensors: of the first call of the denoiser; `times` are the timesteps it was given, one a step.
    """

    scheduler: Any
    scale: float
    shape: CallShape | None = None
    tensors: Tensors = ()
    times: list[torch.Tensor] = field(default_factory=list)
    inputs: list[torch.Tensor] = field(default_factory=list)
    answers: list[torch.Tensor] = field(default_factory=list)
    steps: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    wrong: str = ""
    found: Any = None
    plan: Any = None

    def asked(self, shape: CallShape, tensors: Tensors, answer: torch.Tensor) -> None:
        """Take a call of the denoiser."""
        sample, time = place(shape, "sample"), place(shape, "timestep")
        if time is None or sample is None:
            self.wrong = "the denoiser is given no timestep"
            return
        if self.shape is None:
            self.shape, self.tensors = shape, tensors
        elif not shape.same_as(self.shape) or any(
            not _same(new, old)
            for index, (new, old) in enumerate(zip(tensors, self.tensors, strict=True))
            if index not in (sample, time)
        ):
            self.wrong = "what the denoiser is given changes from step to step"
        self.times.append(tensors[time].clone())
        self.inputs.append(tensors[sample].clone())
        self.answers.append(answer.clone())

    def stepped(self, output: torch.Tensor, sample: torch.Tensor, result: torch.Tensor) -> None:
        """Take a call of the scheduler."""
        self.steps.append((output.clone(), sample.clone(), result.clone()))

    @property
    def guided(self) -> bool:
        """Whether the denoiser is asked for both halves of guidance in one batch."""
        return bool(self.inputs[0].shape[0] == 2 * self.steps[0][1].shape[0])

    def unlike(self, found: Recurrence) -> str:
        """Return what in the request was not as a loop over a recurrence would have it; empty where all was."""
        count = found.steps
        if self.wrong:
            return self.wrong
        if len(self.answers) != count or len(self.steps) != count:
            return f"{len(self.answers)} calls of the denoiser and {len(self.steps)} steps for {count} timesteps"
        for step, (output, sample, result) in enumerate(self.steps):
            given = sample.float() * found.inputs[step]
            if _far(self.inputs[step], _doubled(given) if self.guided else given, sample.dtype, 1):
                return f"step {step} gives the denoiser more than scaled latents"
            if _far(
                output, guided_output(self.answers[step], self.scale, self.guided, sample), sample.dtype, self.scale
            ):
                return f"step {step} makes more of the denoiser's answer than guidance"
            foreseen = sum(
                self.steps[step - k][1].float() * found.samples[step][k]
                + self.steps[step - k][0].float() * found.outputs[step][k]
                for k in range(min(step + 1, found.depth))
            )
            if _far(result, foreseen, sample.dtype, 1):
                return f"step {step} of the scheduler is not what its recurrence says"
        return ""


def guided_output(answer: Any, scale: Any, guided: bool, sample: Any) -> Any:
    """Combine the halves of guidance, and leave out a variance that was learned beside the mean."""
    if guided:
        first, second = answer.chunk(2)
        answer = first + scale * (second - first)
    return answer.chunk(2, dim=1)[0] if answer.shape[1] == 2 * sample.shape[1] and answer.ndim > 3 else answer


def place(shape: CallShape, name: str) -> int | None:
    """Return where among a call's tensors the latent (`sample`) or the timestep stands."""
    names = ("sample", "hidden_states") if name == "sample" else (name,)
    return next((index for index, given in enumerate(shape.names) if given in names), None)


def _doubled(value: Any) -> Any:
    import torch

    return torch.cat([value, value])


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one is other or (one.shape == other.shape and bool((one == other).all()))


def _far(one: Any, other: Any, dtype: Any, times: float) -> bool:
    import torch

    if one.shape != other.shape:
        return True
    off = (one.float() - other.float()).norm()
    return not bool(off <= ROUNDINGS * max(times, 1.0) * torch.finfo(dtype).eps * one.float().norm() + 1e-12)
