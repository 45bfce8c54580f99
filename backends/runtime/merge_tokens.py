"""Merge image tokens that are alike before a UNet attends to itself, in the manner of ToMe for Stable Diffusion."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import Attachment, attachment, component_name

if TYPE_CHECKING:
    import torch

Pipe = TypeVar("Pipe")
MERGED = "_diffopt_merged"


def merge_tokens(pipe: Pipe, component: str, *, ratio: float, levels: int = 1) -> Pipe:
    """Let self-attention at the finest `levels` that have any see a share `ratio` fewer tokens (arXiv 2303.17604).

    Of each square of four tokens one is kept; of the others, those most alike to a kept one join it, and get back what it
    got. Computed by the tensors of the call alone, so that tracing, engines and step plans take it along.
    Raises BackendError if the component is no UNet with such attention, is merged, compiled or exported already.
    """
    name, state = component_name(pipe, component), attachment(pipe)
    unet = getattr(pipe, name)
    for earlier in ("export", "compile", "merge_tokens"):
        if state.noted(name, earlier):
            raise BackendError(f"{name}: merge_tokens cannot follow {earlier}")
    found = _by_level(unet)
    if not found:
        raise BackendError(f"{name} has no blocks of self-attention over an image")
    merging = Merging(state, name, ratio)
    for level in sorted(found)[:levels]:
        for attention in found[level]:
            merging.attach(attention)
    state.note(name, "merge_tokens", ratio=ratio, levels=levels)
    state.witnesses.append(merging.witness)
    return pipe


def _by_level(unet: Any) -> dict[int, list[Any]]:
    """Return the attention modules by how often the image was halved before them."""
    found: dict[int, list[Any]] = {}
    depth = len(getattr(unet, "down_blocks", ()))
    for index, block in enumerate(getattr(unet, "down_blocks", ())):
        found.setdefault(index, []).extend(getattr(block, "attentions", None) or ())
    for index, block in enumerate(getattr(unet, "up_blocks", ())):
        found.setdefault(depth - 1 - index, []).extend(getattr(block, "attentions", None) or ())
    kept = {level: [a for a in held if hasattr(a, "transformer_blocks")] for level, held in found.items()}
    return {level: held for level, held in kept.items() if held}


class Merging:
    """Counts, and the wrapped attentions."""

    def __init__(self, state: Attachment, name: str, ratio: float) -> None:
        self._state = state
        self._name = name
        self._ratio = ratio
        self._calls = self._before = self._after = 0

    def attach(self, attention: Any) -> None:
        """Merge in the self-attention of each block of an attention over an image."""
        size: list[tuple[int, int]] = [(0, 0)]

        def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            image = args[0] if args else kwargs["hidden_states"]
            size[0] = (int(image.shape[-2]), int(image.shape[-1]))

        attention.register_forward_pre_hook(note, with_kwargs=True)
        for block in attention.transformer_blocks:
            block.attn1.__dict__["forward"] = self._merging(block.attn1.forward, size)

    def _merging(self, original: Any, size: list[tuple[int, int]]) -> Any:
        @functools.wraps(original)
        def forward(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            rows, columns = size[0]
            given = [value for value in (*args, *kwargs.values()) if value is not None]
            if given or hidden_states.ndim != 3 or hidden_states.shape[1] != rows * columns or min(rows, columns) < 2:
                return original(hidden_states, *args, **kwargs)
            places, count = assignment(hidden_states, rows, columns, self._ratio)
            self._calls += self._state.counting
            self._before += self._state.counting * rows * columns
            self._after += self._state.counting * count
            return unmerged(original(merged(hidden_states, places, count)), places)

        return forward

    def witness(self) -> Witness:
        detail = f"{self._name}: {self._calls} attentions over {self._after} instead of {self._before} tokens"
        return Witness("merge_tokens", self._calls, detail)


def assignment(tokens: torch.Tensor, rows: int, columns: int, ratio: float) -> tuple[torch.Tensor, int]:
    """Return for each token its place among the merged ones, batch × tokens, and how many of these there are.

    tokens: batch × (rows · columns) × channels, row by row.
    """
    import torch

    batch, total, _ = tokens.shape
    grid = torch.arange(total, device=tokens.device).view(rows, columns)
    chosen = torch.zeros(rows, columns, dtype=torch.bool, device=tokens.device)
    chosen[::2, ::2] = True
    kept, others = grid[chosen], grid[~chosen]
    leaving = min(int(ratio * total), len(others))
    staying = len(others) - leaving
    unit = tokens / tokens.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    likeness, nearest = (unit[:, others] @ unit[:, kept].transpose(1, 2)).max(dim=-1)
    order = likeness.argsort(dim=-1, descending=True)
    alone = torch.arange(staying, device=tokens.device).expand(batch, staying)
    joined = staying + nearest.gather(1, order[:, :leaving])
    places = torch.zeros_like(order).scatter(1, order, torch.cat([joined, alone], dim=1))
    own = staying + torch.arange(len(kept), device=tokens.device).expand(batch, len(kept))
    back = torch.cat([others, kept]).argsort()
    return torch.cat([places, own], dim=1)[:, back], staying + len(kept)


def merged(tokens: torch.Tensor, places: torch.Tensor, count: int) -> torch.Tensor:
    """Return the mean of the tokens of each place."""
    import torch

    batch, _, channels = tokens.shape
    wide = places.unsqueeze(-1).expand(-1, -1, channels)
    sums = torch.zeros(batch, count, channels, dtype=tokens.dtype, device=tokens.device).scatter_add(1, wide, tokens)
    ones = torch.ones_like(places, dtype=tokens.dtype)
    counts = torch.zeros(batch, count, dtype=tokens.dtype, device=tokens.device).scatter_add(1, places, ones)
    return sums / counts.unsqueeze(-1)


def unmerged(tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Give each token what its place got."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
