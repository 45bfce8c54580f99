"""Weights as 4-bit integers, two to a byte."""

from __future__ import annotations

import torch
from torch import nn

GROUP = 32
"""Weights of a row in a row that share a scale and a smallest value; rows of other lengths stay in 8 bits."""


class Int4Weight(nn.Module):
    """A layer's weight as 4-bit integers, with a scale and a smallest value for each group of each output channel."""

    values: torch.Tensor
    scale: torch.Tensor
    least: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        groups = weight.detach().float().reshape(len(weight), -1, GROUP)
        least, most = groups.aminmax(dim=-1, keepdim=True)
        scale = (most - least).clamp_min(1e-12) / 15
        whole = ((groups - least) / scale).round().clamp(0, 15).to(torch.uint8)
        half = GROUP // 2
        self.register_buffer("values", whole[..., :half] + 16 * whole[..., half:])
        self.register_buffer("scale", scale.to(weight.dtype))
        self.register_buffer("least", least.to(weight.dtype))
        self.shape = tuple(weight.shape)

    def widened(self) -> torch.Tensor:
        """Return the weight in floating point.

        Halves are taken apart by bits, but where it is exported by arithmetic, which is exact and which every exporter knows.
        """
        if being_exported():
            both = self.values.to(self.scale.dtype)
            upper = torch.floor(both / 16)
            whole = torch.cat((both - 16 * upper, upper), dim=-1)
        else:
            whole = torch.cat((self.values & 15, self.values >> 4), dim=-1).to(self.scale.dtype)
        return torch.addcmul(self.least, whole, self.scale).view(self.shape)

    @property
    def bytes(self) -> int:
        """How much memory it takes."""
        return sum(part.numel() * part.element_size() for part in (self.values, self.scale, self.least))


def fits(weight: torch.Tensor) -> bool:
    """Tell whether the rows of a weight are made of whole groups."""
    return weight[0].numel() % GROUP == 0


def being_exported() -> bool:
    """Tell whether an exporter is looking: engines round what enters a layer by themselves, and do not know all operations."""
    return bool(torch._C._get_tracing_state()) or torch.compiler.is_exporting()
