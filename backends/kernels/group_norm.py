"""Group norm and SiLU over images whose channels lie last (or first), with the embedding of the time added ahead of it.

Small groups take one launch, a program for each. Large images take three: every block of pixels says its mean and
spread of each channel, those are joined to one scale and shift a channel, and these are applied.
"""

import math

import torch
from torch.library import triton_op, wrap_triton

from diffopt.backends.kernels.launching import jit, on_triton, power_of_two, tl, tuned

SMALL = 16384
"""Elements of a group, up to which one program takes all of it unless told otherwise."""
BLOCKS = 256
"""Blocks of pixels, about so many at most, whose statistics are joined."""


@tuned((8,), ["GROUP"])
@jit
def _whole(  # type: ignore[no-untyped-def]
    x_ptr, weight_ptr, bias_ptr, added_ptr, out_ptr, pixels, eps, x_image, x_pixel, x_channel,
    added_image, GROUP: tl.constexpr, AFFINE: tl.constexpr, ADDED: tl.constexpr, SILU: tl.constexpr,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    within = tl.arange(0, CHANNELS)[None, :]
    channel = tl.program_id(0) * GROUP + within
    real = within < GROUP
    base = image * x_image + channel * x_channel
    added = tl.zeros((1, CHANNELS), dtype=tl.float32)
    if ADDED:
        added = tl.load(added_ptr + image * added_image + channel, mask=real, other=0.0).to(tl.float32)
    count = 0.0
    mean = 0.0
    spread = 0.0
    for start in range(0, pixels, PIXELS):
        pixel = start + tl.arange(0, PIXELS)[:, None]
        inside = real & (pixel < pixels)
        x = tl.load(x_ptr + base + pixel * x_pixel, mask=inside, other=0.0).to(tl.float32) + added
        x = tl.where(inside, x, 0.0)
        here = (tl.minimum(pixels - start, PIXELS) * GROUP).to(tl.float32)
        its_mean = tl.sum(tl.sum(x, axis=1), axis=0) / here
        centred = tl.where(inside, x - its_mean, 0.0)
        its_spread = tl.sum(tl.sum(centred * centred, axis=1), axis=0)
        off = its_mean - mean
        total = count + here
        mean += off * here / total
        spread += its_spread + off * off * count * here / total
        count = total
    scale = tl.zeros((1, CHANNELS), dtype=tl.float32) + 1.0 / tl.sqrt(spread / count + eps)
    shift = -mean * scale
    if AFFINE:
        weight = tl.load(weight_ptr + channel, mask=real, other=0.0).to(tl.float32)
        scale = scale * weight
        shift = shift * weight + tl.load(bias_ptr + channel, mask=real, other=0.0).to(tl.float32)
    shift += added * scale
    for start in range(0, pixels, PIXELS):
        pixel = start + tl.arange(0, PIXELS)[:, None]
        inside = real & (pixel < pixels)
        y = tl.load(x_ptr + base + pixel * x_pixel, mask=inside, other=0.0).to(tl.float32) * scale + shift
        if SILU:
            y = y * tl.sigmoid(y)
        tl.store(out_ptr + base + pixel * x_pixel, y, mask=inside)


@jit
def _statistics(  # type: ignore[no-untyped-def]
    x_ptr, mean_ptr, spread_ptr, pixels, channels, blocks, x_image, x_pixel, x_channel,
    REPEATS: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    image = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    real = channel < channels
    base = image * x_image + channel[None, :] * x_channel
    count = 0.0
    mean = tl.zeros((CHANNELS,), dtype=tl.float32)
    spread = tl.zeros((CHANNELS,), dtype=tl.float32)
    for repeat in range(REPEATS):
        start = (block * REPEATS + repeat) * PIXELS
        pixel = start + tl.arange(0, PIXELS)[:, None]
        inside = real[None, :] & (pixel < pixels)
        x = tl.load(x_ptr + base + pixel * x_pixel, mask=inside, other=0.0).to(tl.float32)
        here = tl.maximum(tl.minimum(pixels - start, PIXELS), 0).to(tl.float32)
        its_mean = tl.sum(x, axis=0) / tl.maximum(here, 1.0)
        centred = tl.where(inside, x - its_mean[None, :], 0.0)
        off = its_mean - mean
        total = count + here
        share = here / tl.maximum(total, 1.0)
        mean += off * share
        spread += tl.sum(centred * centred, axis=0) + off * off * count * share
        count = total
    place = (image * blocks + block) * channels + channel
    tl.store(mean_ptr + place, mean, mask=real)
    tl.store(spread_ptr + place, spread, mask=real)


@jit
def _join(  # type: ignore[no-untyped-def]
    mean_ptr, spread_ptr, weight_ptr, bias_ptr, added_ptr, scale_ptr, shift_ptr,
    pixels, channels, blocks, block_pixels, group, eps, added_image,
    AFFINE: tl.constexpr, ADDED: tl.constexpr, BLOCKS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(1).to(tl.int64)
    within = tl.arange(0, CHANNELS)[None, :]
    channel = tl.program_id(0) * group + within
    real = within < group
    block = tl.arange(0, BLOCKS)[:, None]
    inside = real & (block < blocks)
    place = (image * blocks + block) * channels + channel
    count = tl.minimum(pixels - block * block_pixels, block_pixels).to(tl.float32)
    count = tl.where(inside, tl.maximum(count, 0.0), 0.0)
    added = tl.zeros((1, CHANNELS), dtype=tl.float32)
    if ADDED:
        added = tl.load(added_ptr + image * added_image + channel, mask=real, other=0.0).to(tl.float32)
    means = tl.load(mean_ptr + place, mask=inside, other=0.0) + added
    spreads = tl.load(spread_ptr + place, mask=inside, other=0.0)
    total = 1.0 * pixels * group
    mean = tl.sum(tl.sum(means * count, axis=1), axis=0) / total
    off = means - mean
    spread = tl.sum(tl.sum(spreads + off * off * count, axis=1), axis=0)
    scale = tl.zeros((1, CHANNELS), dtype=tl.float32) + 1.0 / tl.sqrt(spread / total + eps)
    shift = -mean * scale
    if AFFINE:
        weight = tl.load(weight_ptr + channel, mask=real, other=0.0).to(tl.float32)
        scale = scale * weight
        shift = shift * weight + tl.load(bias_ptr + channel, mask=real, other=0.0).to(tl.float32)
    shift += added * scale
    tl.store(scale_ptr + image * channels + channel, scale, mask=real)
    tl.store(shift_ptr + image * channels + channel, shift, mask=real)


@tuned((4, 8), ["channels", "x_pixel"])
@jit
def _apply(  # type: ignore[no-untyped-def]
    x_ptr, scale_ptr, shift_ptr, out_ptr, pixels, channels, x_image, x_pixel, x_channel,
    SILU: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[:, None]
    inside = (channel < channels) & (pixel < pixels)
    scale = tl.load(scale_ptr + image * channels + channel, mask=channel < channels, other=0.0)
    shift = tl.load(shift_ptr + image * channels + channel, mask=channel < channels, other=0.0)
    at = image * x_image + pixel * x_pixel + channel * x_channel
    y = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32) * scale + shift
    if SILU:
        y = y * tl.sigmoid(y)
    tl.store(out_ptr + at, y, mask=inside)


@triton_op("diffopt::group_norm_silu", mutates_args={})
def group_norm_silu(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    added: torch.Tensor | None,
    silu: bool,
    small: int = SMALL,
) -> torch.Tensor:
    """Return `silu(group_norm(x + added))` in x's dtype and layout; computed in float32.

    x: (batch, channels, ...), dense with channels last or first (else copied); weight, bias: (channels,), both or none;
    added: (batch or 1, channels), as residual blocks add the embedding of the time, or None. silu: whether it follows.
    small: elements of a group up to which one program takes all of it.
    Source: Wu and He, Group Normalization, 2018; Chan et al., Updating Formulae for Sample Variances, 1979.
    """
    if not on_triton(x, weight, bias, added) or (weight is None) != (bias is None):
        return reference(x, groups, weight, bias, eps, added, silu)
    x = _laid_out(x)
    images, channels = x.shape[:2]
    pixels, group = math.prod(x.shape[2:]), channels // groups
    last = x.stride(1) == 1 and channels > 1
    strides = (x.stride(0), channels, 1) if last else (x.stride(0), 1, pixels)
    shifts = x if added is None else (added if added.stride(-1) == 1 else added.contiguous()).expand(images, -1)
    weights, biases = (x, x) if weight is None or bias is None else (weight.contiguous(), bias.contiguous())
    out = torch.empty_like(x)
    if pixels * group <= small:
        wide = power_of_two(group)
        wrap_triton(_whole)[(groups, images)](
            x, weights, biases, shifts, out, pixels, eps, *strides, shifts.stride(0),
            GROUP=group, AFFINE=weight is not None, ADDED=added is not None, SILU=silu,
            PIXELS=min(power_of_two(pixels), max(8192 // wide, 1)), CHANNELS=wide,
        )  # fmt: skip
        return out
    tall, wide = (64, 64) if last else (1024, 4)
    repeats = -(-pixels // (tall * BLOCKS))
    blocks = -(-pixels // (tall * repeats))
    means, spreads = (torch.empty((images, blocks, channels), dtype=torch.float32, device=x.device) for _ in range(2))
    wrap_triton(_statistics)[(blocks, -(-channels // wide), images)](
        x, means, spreads, pixels, channels, blocks, *strides, REPEATS=repeats, PIXELS=tall, CHANNELS=wide
    )
    scales, offsets = (torch.empty((images, channels), dtype=torch.float32, device=x.device) for _ in range(2))
    wrap_triton(_join)[(groups, images)](
        means, spreads, weights, biases, shifts, scales, offsets,
        pixels, channels, blocks, tall * repeats, group, eps, shifts.stride(0),
        AFFINE=weight is not None, ADDED=added is not None, BLOCKS=power_of_two(blocks), CHANNELS=power_of_two(group),
    )  # fmt: skip
    wrap_triton(_apply)[(-(-pixels // tall), -(-channels // wide), images)](
        x, scales, offsets, out, pixels, channels, *strides, SILU=silu, PIXELS=tall, CHANNELS=wide
    )
    return out


def reference(
    x: torch.Tensor, groups: int, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float,
    added: torch.Tensor | None, silu: bool,
) -> torch.Tensor:  # fmt: skip
    """Compute the same in torch, as diffusers does."""
    if added is not None:
        x = x + added.reshape(*added.shape, *[1] * (x.ndim - 2))
    found = torch.nn.functional.group_norm(x, groups, weight, bias, eps)
    return torch.nn.functional.silu(found) if silu else found


def _laid_out(x: torch.Tensor) -> torch.Tensor:
    """Return the images dense, channels last where they are so already, else first."""
    for layout, dimensions in ((torch.channels_last, 4), (torch.channels_last_3d, 5)):
        if x.ndim == dimensions and x.is_contiguous(memory_format=layout):
            return x
    return x.contiguous()
