"""A linear layer in 8-bit floating point."""

from __future__ import annotations

import torch
from torch import nn

from diffopt.backends.kernels.quantize_rows import quantize_rows, reference


class Fp8Linear(nn.Module):
    """A linear layer whose weights are e4m3 with one scale a row, and whose inputs are rounded so at each call."""

    weight: torch.Tensor
    weight_scale: torch.Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = layer.bias
        weight, scale = reference(layer.weight.detach().float())
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", scale.t().contiguous())

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        rows = hidden.reshape(-1, self.in_features)
        # One kernel on a GPU; torch's own operations elsewhere, also where Triton would interpret the kernel.
        rounded, scale = quantize_rows(rows) if rows.is_cuda else reference(rows)
        if rows.is_cuda:
            # Row-wise products come out in bfloat16, whatever the layer's own dtype.
            out = torch._scaled_mm(
                rounded, self.weight.t(), scale_a=scale, scale_b=self.weight_scale,
                bias=None if self.bias is None else self.bias.to(torch.bfloat16),
                out_dtype=torch.bfloat16, use_fast_accum=True,
            ).to(hidden.dtype)  # fmt: skip
        else:
            product = nn.functional.linear(rounded.float(), self.weight.float()) * scale * self.weight_scale
            out = product.to(hidden.dtype) if self.bias is None else (product + self.bias).to(hidden.dtype)
        return out.view(*hidden.shape[:-1], self.out_features)
