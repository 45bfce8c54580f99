"""Start a network from a larger trained one of the same layout: the channels that matter most are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


def inherit(student: nn.Module, teacher: nn.Module) -> None:
    """Give a UNet the weights of another whose deepest level is wider; every other width is the same.

    The channels of the deepest level are read by many layers: those with the largest weights in all of them together
    stay, equally many of each normalization group. Inside an attention or a feed-forward layer each keeps its own.
    """
    import torch

    given: Any = teacher
    taken: Any = student
    groups, heads = int(given.config.norm_num_groups), int(given.config.attention_head_dim)
    wide, narrow = int(given.config.block_out_channels[-1]), int(taken.config.block_out_channels[-1])
    old, new = dict(teacher.state_dict()), dict(student.state_dict())
    residual = _best(_read(old, wide), groups, narrow)
    inner = {
        name: _inner(old, name, wide, narrow, heads) for name in old if name.endswith(("to_q.weight", "net.2.weight"))
    }

    def kept(name: str, axis: int, before: int, after: int) -> torch.Tensor:
        if before == after:
            return torch.arange(before)
        layer = name.rsplit(".", 2)[0].removesuffix(".to_out").removesuffix(".net.0")
        if axis == 0 and name.endswith(("to_q.weight", "to_k.weight", "to_v.weight")):
            return inner[f"{layer}.to_q.weight"]
        if axis == 1 and name.endswith("to_out.0.weight"):
            return inner[f"{layer}.to_q.weight"]
        if axis == 0 and ".net.0.proj." in name:
            hidden = inner[f"{name.split('.net.0.')[0]}.net.2.weight"]
            return torch.cat([hidden, hidden + before // 2])
        if axis == 1 and name.endswith("net.2.weight"):
            return inner[name]
        rest = torch.arange(wide, before) if before != 2 * wide else residual + wide
        return torch.cat([residual, rest]) if before > wide else residual

    for name, value in new.items():
        weight = old[name]
        if weight.ndim == 4 and value.ndim == 2:
            weight = weight[:, :, 0, 0]
        for axis in range(weight.ndim):
            weight = weight.index_select(axis, kept(name, axis, weight.shape[axis], value.shape[axis]))
        new[name] = weight
    student.load_state_dict(new)


def _read(state: dict[str, torch.Tensor], wide: int) -> torch.Tensor:
    """Return how much of each deepest channel is read [wide], by the size of the weights that read it."""
    import torch

    total = torch.zeros(wide)
    for name, weight in state.items():
        if weight.ndim < 2 or weight.shape[1] < wide or name.endswith(("to_out.0.weight", "net.2.weight")):
            continue
        if weight.shape[1] in (wide, 2 * wide) or "up_blocks" in name:
            read = weight.flatten(2).square().sum(dim=(0, 2)) if weight.ndim == 4 else weight.square().sum(dim=0)
            total += (read / read.sum())[:wide]
    return total


def _best(score: torch.Tensor, groups: int, count: int) -> torch.Tensor:
    """Return the indices of the highest scores, equally many of each group, in order."""
    import torch

    size = len(score) // groups
    chosen = [part.topk(count // groups).indices + size * index for index, part in enumerate(torch.split(score, size))]
    return torch.cat([part.sort().values for part in chosen])


def _inner(state: dict[str, torch.Tensor], name: str, wide: int, narrow: int, heads: int) -> torch.Tensor:
    """Return which inner channels an attention or a feed-forward layer keeps."""
    if name.endswith("to_q.weight"):
        layer = name.removesuffix("to_q.weight")
        size = [state[f"{layer}{part}.weight"].norm(dim=1) for part in ("to_q", "to_k", "to_v")]
        score = size[0] * size[1] / 4 + size[2] * state[f"{layer}to_out.0.weight"].norm(dim=0)
        return _best(score, heads, len(score) * narrow // wide if len(score) == wide else len(score))
    layer = name.removesuffix("net.2.weight")
    first, second = state[f"{layer}net.0.proj.weight"], state[name]
    score = first[: second.shape[1]].norm(dim=1) * second.norm(dim=0)
    return _best(score, 1, len(score) * narrow // wide if second.shape[0] == wide else len(score))


def same_noise(alphas: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return for each step of one schedule the step of another with as much noise, float32 [len(alphas)].

    Args:
        alphas: `alphas_cumprod` of the one, falling; may end at 0.
        others: `alphas_cumprod` of the other, falling; a step beyond its ends is its end.
    """
    import numpy as np
    import torch

    def noise(kept: torch.Tensor) -> Any:
        safe = kept.double().clamp(1e-9, 1 - 1e-9)
        return (torch.log1p(-safe) - safe.log()).numpy()

    found = np.interp(noise(alphas), noise(others), np.arange(len(others)))
    return torch.from_numpy(found).float()


def fit_times(student: nn.Module, teacher: nn.Module, times: torch.Tensor, steps: int = 400) -> float:
    """Let the student's embedding of step i be the teacher's of `times[i]`; return what is left, relative."""
    import torch

    given: Any = teacher
    taken: Any = student
    with torch.no_grad():
        wanted = given.time_embedding(given.time_proj(times))
        read = taken.time_proj(torch.arange(len(times), device=times.device))
    optimizer = torch.optim.Adam(taken.time_embedding.parameters(), lr=1e-3)
    left = 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        loss = (taken.time_embedding(read) - wanted).square().mean() / wanted.var(dim=0).mean()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        left = loss.item()
    return left
