"""Guidance and the scheduler's step in one pass over the latents, with coefficients that lie on the device.

Every deterministic solver of one or two orders is linear in what it has at hand, so one kernel does them all:
`m = u + g · (c − u)`, `x₀ = p · x + q · m`, `x' = a · x + b · x₀ + d · x₀ of the step before`.
"""

import torch
from torch.library import triton_op, wrap_triton

from diffopt.backends.kernels.launching import jit, on_triton, tl, tuned

COEFFICIENTS = ("guidance", "p", "q", "a", "b", "d")


@tuned((4,), ["numel"], ({"BLOCK": 256}, {"BLOCK": 1024}))
@jit
def _guided_step(  # type: ignore[no-untyped-def]
    prediction_ptr, sample_ptr, history_ptr, coefficient_ptr, next_ptr, clean_ptr, numel,
    GUIDED: tl.constexpr, HISTORY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < numel
    predicted = tl.load(prediction_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if GUIDED:
        conditional = tl.load(prediction_ptr + numel + at, mask=inside, other=0.0).to(tl.float32)
        predicted += tl.load(coefficient_ptr) * (conditional - predicted)
    sample = tl.load(sample_ptr + at, mask=inside, other=0.0).to(tl.float32)
    clean = tl.load(coefficient_ptr + 1) * sample + tl.load(coefficient_ptr + 2) * predicted
    result = tl.load(coefficient_ptr + 3) * sample + tl.load(coefficient_ptr + 4) * clean
    if HISTORY:
        result += tl.load(coefficient_ptr + 5) * tl.load(history_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(next_ptr + at, result, mask=inside)
    tl.store(clean_ptr + at, clean, mask=inside)


@triton_op("diffopt::guided_step", mutates_args={})
def guided_step(
    prediction: torch.Tensor, sample: torch.Tensor, history: torch.Tensor | None, coefficients: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the next latents in the sample's dtype, and the clean image foreseen (float32), the history of the next step.

    prediction: as the denoiser gives it; of twice the sample's batch it is [unconditional, conditional], else guided
    already. history: the clean image foreseen a step before, or None. coefficients: `COEFFICIENTS`, float32 (6,), on the
    device, so that a captured graph is told each step's by a copy.
    """
    if not on_triton(prediction, sample, history, coefficients):
        return reference(prediction, sample, history, coefficients)
    predicted, given, earlier = prediction.contiguous(), sample.contiguous(), (sample if history is None else history)
    following = torch.empty(sample.shape, dtype=sample.dtype, device=sample.device)
    clean = torch.empty(sample.shape, dtype=torch.float32, device=sample.device)
    numel = sample.numel()
    wrap_triton(_guided_step)[lambda meta: (-(-numel // meta["BLOCK"]),)](
        predicted, given, earlier.contiguous(), coefficients.contiguous(), following, clean, numel,
        GUIDED=prediction.shape[0] == 2 * sample.shape[0], HISTORY=history is not None,
    )  # fmt: skip
    return following, clean


def reference(
    prediction: torch.Tensor, sample: torch.Tensor, history: torch.Tensor | None, coefficients: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the same in torch."""
    wide = torch.promote_types(sample.dtype, torch.float32)
    guidance, p, q, a, b, d = coefficients.to(wide).unbind()
    predicted, given = prediction.to(wide), sample.to(wide)
    if prediction.shape[0] == 2 * sample.shape[0]:
        unconditional, conditional = predicted.chunk(2)
        predicted = unconditional + guidance * (conditional - unconditional)
    clean = p * given + q * predicted
    following = a * given + b * clean
    if history is not None:
        following = following + d * history.to(wide)
    return following.to(sample.dtype), clean
