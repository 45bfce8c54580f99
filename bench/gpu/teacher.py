"""Teacher-forced error of the denoiser: what each arm answers at the latents of one eager request."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

CHECKED = 3
"""Steps at which float32 is asked too: the first, the middle and the last."""


@dataclass
class Teacher:
    """An eager request: latents and guided answers of every step, and the denoiser's arguments at some.

    The teacher's answers are in the pipeline's dtype; float32 answers at the checked steps tell how good they are.
    """

    seed: int
    prompt: str
    scale: float
    timesteps: list[float] = field(default_factory=list)
    latents: list[Any] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    wide: dict[int, Any] = field(default_factory=dict)

    @property
    def checked(self) -> list[int]:
        """The steps at which float32 is asked."""
        last = len(self.latents) - 1
        return sorted({round(last * part / (CHECKED - 1)) for part in range(CHECKED)})


def denoiser_name(pipe: Any) -> str:
    """Return the name of a pipeline's denoiser."""
    return "unet" if getattr(pipe, "unet", None) is not None else "transformer"


def generator(device: str, seed: int) -> Any:
    """Return a generator on a device."""
    import torch

    return torch.Generator(device).manual_seed(seed)


def listen(pipe: Any, prompt: str, seed: int, device: str) -> Teacher:
    """Run one request of an eager pipeline and keep what its denoiser and scheduler said."""
    import inspect

    scale = inspect.signature(type(pipe).__call__).parameters["guidance_scale"].default
    state = pipe.__dict__.get("_diffopt")
    scale = state.defaults.get("guidance_scale", scale) if state is not None else scale
    teacher = Teacher(seed, prompt, float(scale))
    denoiser = getattr(pipe, denoiser_name(pipe))
    original, step = denoiser.forward, pipe.scheduler.step

    def forward(*args: Any, **kwargs: Any) -> Any:
        teacher.calls.append((args, kwargs))
        return original(*args, **kwargs)

    def stepping(output: Any, time: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        teacher.answers.append(output.clone())
        teacher.latents.append(sample.clone())
        teacher.timesteps.append(float(time))
        return step(output, time, sample, *args, **kwargs)

    denoiser.__dict__["forward"], pipe.scheduler.__dict__["step"] = forward, stepping
    try:
        pipe(prompt, generator=generator(device, seed), output_type="latent")
    finally:
        del denoiser.__dict__["forward"], pipe.scheduler.__dict__["step"]
    return teacher


def ask_float32(teacher: Teacher, pipe: Any) -> None:
    """Ask a float32 copy of the denoiser at the checked steps."""
    import torch

    wide = copy.deepcopy(getattr(pipe, denoiser_name(pipe))).float()
    with _exact_float32(), torch.no_grad():
        for step in teacher.checked:
            args, kwargs = torch.utils._pytree.tree_map_only(
                torch.Tensor, lambda t: t.float() if t.is_floating_point() else t, teacher.calls[step]
            )
            if type(wide).__name__.startswith("Flux"):
                # It multiplies these by 1000 in its own dtype: what is asked is how well the network computes, not
                # what another timestep would have given.
                for name in ("timestep", "guidance"):
                    given = teacher.calls[step][1][name]
                    kwargs[name] = (given.to(teacher.latents[step].dtype) * 1000).float() / 1000
            teacher.wide[step] = guided(teacher, wide(*args, **{**kwargs, "return_dict": False})[0], step)


def guided(teacher: Teacher, answer: Any, step: int) -> Any:
    """Combine a denoiser's answer as the pipeline does."""
    from diffopt.backends.runtime.loop_record import guided_output

    latents = teacher.latents[step]
    return guided_output(answer, teacher.scale, answer.shape[0] == 2 * latents.shape[0], latents)


def errors(teacher: Teacher, answers: dict[int, Any]) -> dict[str, Any]:
    """Compare an arm's answers, by step, with the teacher's and with float32."""
    found: dict[str, Any] = {"steps": len(answers)}
    against = [_relative(value, teacher.answers[step]) for step, value in answers.items()]
    found["to_eager"] = {"mean": sum(against) / len(against), "worst": max(against)}
    narrow = [_relative(answers[step], wide) for step, wide in teacher.wide.items() if step in answers]
    if narrow:
        found["to_float32"] = {"mean": sum(narrow) / len(narrow), "worst": max(narrow)}
    return found


def answers_of(arm: Any, kind: str, teacher: Teacher, device: str) -> dict[int, Any] | str:
    """Return what an arm answers at the teacher's latents, or why that cannot be compared."""
    import torch

    denoiser = getattr(arm, denoiser_name(arm))
    if kind == "eager":
        return dict(enumerate(teacher.answers))
    if kind == "stock":
        found = {}
        with torch.no_grad():
            for step in teacher.checked:
                args, kwargs = teacher.calls[step]
                found[step] = guided(teacher, denoiser(*args, **kwargs)[0], step).clone()
        return found
    arm(teacher.prompt, generator=generator(device, teacher.seed), output_type="latent")
    taker = denoiser.__dict__["_diffopt_captured"]
    if taker.last is None:
        return "its steps are not captured"
    if len(taker.last.plan.kinds) != len(teacher.latents):
        return "it takes other timesteps"
    with torch.no_grad():
        return dict(enumerate(taker.last.outputs_at(teacher.latents)))


def _relative(value: Any, reference: Any) -> float:
    value, reference = value.float(), reference.float()
    return float((value - reference).norm() / reference.norm())


@contextlib.contextmanager
def _exact_float32() -> Iterator[None]:
    """Multiply in float32 itself, not in its short forms."""
    import torch

    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution
