"""Norm and activate images in one kernel."""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar

from diffopt.backends.runtime.fused import fused

if TYPE_CHECKING:
    import torch

Pipe = TypeVar("Pipe")


def fuse_group_norm(pipe: Pipe, component: str) -> Pipe:
    """Run the group norms of a component as kernels, with the SiLU and the added time embedding about them.

    Raises BackendError if the component has none, or is compiled or exported already.
    """
    import torch
    from diffusers.models.resnet import ResnetBlock2D

    def replace(part: Any) -> int:
        if type(part) is ResnetBlock2D and part.time_embedding_norm == "default" and _is_silu(part.nonlinearity):
            part.__dict__["forward"] = MethodType(_residual_block, part)
            return 2
        last = getattr(part, "conv_norm_out", None)
        if type(last) is torch.nn.GroupNorm and _is_silu(getattr(part, "conv_act", None)):
            last.__dict__["forward"] = MethodType(_activated, last)
            part.conv_act = torch.nn.Identity()
            return 1
        return 0

    return fused(pipe, component, "fuse_group_norm", "group norms", replace)


def _is_silu(part: Any) -> bool:
    import torch

    return type(part) is torch.nn.SiLU


def _activated(norm: Any, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
    from diffopt.backends.kernels.group_norm import group_norm_silu

    found: torch.Tensor = group_norm_silu(x, norm.num_groups, norm.weight, norm.bias, norm.eps, added, True)
    return found


def _residual_block(
    block: Any, input_tensor: torch.Tensor, temb: torch.Tensor | None, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """Compute what diffusers 0.42 has in `ResnetBlock2D.forward`, norm and activation together."""
    hidden = _activated(block.norm1, input_tensor)
    resize = block.upsample if block.upsample is not None else block.downsample
    if resize is not None:
        if hidden.shape[0] >= 64:  # huggingface/diffusers#984: upsampling large batches with channels last fails
            input_tensor, hidden = input_tensor.contiguous(), hidden.contiguous()
        input_tensor, hidden = resize(input_tensor), resize(hidden)
    hidden = block.conv1(hidden)
    if block.time_emb_proj is not None:
        temb = block.time_emb_proj(temb if block.skip_time_act else block.nonlinearity(temb))
    hidden = block.dropout(_activated(block.norm2, hidden, temb))
    hidden = block.conv2(hidden)
    if block.conv_shortcut is not None:
        input_tensor = block.conv_shortcut(input_tensor)
    found: torch.Tensor = (input_tensor + hidden) / block.output_scale_factor
    return found
