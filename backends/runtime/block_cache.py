"""Reuse what the middle blocks of a transformer add to its hidden states (in the manner of FBCache and DBCache)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from diffopt.backends.base import BackendError
from diffopt.backends.runtime.taps import Taps

LISTS = ("transformer_blocks", "single_transformer_blocks", "blocks", "layers")
"""Names under which transformers hold their blocks, in order of computation."""


@dataclass(frozen=True)
class Layout:
    """Where a block's hidden states and encoder states come in and go out; `encoder` is `None` for blocks without."""

    hidden: int
    encoder: int | None
    hidden_name: str
    encoder_name: str

    def take(self, result: Any) -> tuple[Any, Any]:
        """Return hidden and encoder states out of what a block returned."""
        if isinstance(result, torch.Tensor):
            return result, None
        return result[self.hidden], None if self.encoder is None else result[self.encoder]

    def give(self, hidden: Any, encoder: Any) -> Any:
        """Return what a block would return."""
        if self.encoder is None:
            return hidden
        return (hidden, encoder) if self.hidden < self.encoder else (encoder, hidden)


def blocks_of(transformer: Any) -> tuple[list[torch.nn.Module], Layout]:
    """Return the blocks of a transformer in order, and the layout they share.

    Raises BackendError if diffusers does not know its blocks, or they do not all pass on the same states.
    """
    # Private, and the one place where diffusers says how its blocks return their states (0.42).
    from diffusers.hooks._helpers import TransformerBlockRegistry

    kind = type(transformer).__name__
    lists = [
        getattr(transformer, name)
        for name in LISTS
        if isinstance(getattr(transformer, name, None), torch.nn.ModuleList)
    ]
    blocks = [block for held in lists for block in held]
    if not blocks:
        raise BackendError(f"{kind} holds no transformer blocks that could be reused")
    layouts = set()
    for block in blocks:
        try:
            known = TransformerBlockRegistry.get(type(block))
        except ValueError:
            raise BackendError(
                f"diffusers does not say what {type(block).__name__} returns: {kind} cannot reuse it"
            ) from None
        layouts.add(
            Layout(
                known.return_hidden_states_index,
                known.return_encoder_hidden_states_index,
                known.hidden_states_argument_name,
                known.encoder_hidden_states_argument_name,
            )
        )
    if len(layouts) > 1:
        raise BackendError(f"the blocks of {kind} do not all pass on the same states: they cannot be reused together")
    return blocks, layouts.pop()


def tap_blocks(transformer: Any, first: int, last: int) -> Taps:
    """Tap all blocks but the `first` ones and the `last` ones, which run at every step.

    Raises BackendError if the transformer's blocks are not known, or too few.
    """
    blocks, layout = blocks_of(transformer)
    if first < 0 or last < 0 or first + last >= len(blocks):
        raise BackendError(f"of {len(blocks)} blocks, {first} first and {last} last ones leave none to reuse")
    stop = len(blocks) - last
    # Nothing reads the encoder states behind the last block of all.
    both = layout.encoder is not None and last > 0
    span = Span(layout, both=both)
    middle = blocks[first:stop]
    tapped = [(block, SpanTap(span, block is middle[0], block is middle[-1])) for block in middle]
    return Taps(tapped, width=1 + both)


@dataclass
class Span:
    """The row of middle blocks during one pass: what came in at its beginning."""

    layout: Layout
    both: bool
    entered: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class SpanTap:
    """One block of the row: the first one remembers or adds, the last one hands out, the others pass through."""

    span: Span
    opens: bool
    closes: bool

    def full(self, run: Callable[..., Any], given: dict[str, Any], features: list[torch.Tensor]) -> Any:
        span, layout = self.span, self.span.layout
        if self.opens:
            span.entered = [given[layout.hidden_name], given.get(layout.encoder_name)]
        result = run()
        if self.closes:
            left = layout.take(result)
            features += [new - old for new, old in list(zip(left, span.entered, strict=True))[: 1 + span.both]]
            span.entered = []
        return result

    def shallow(self, given: dict[str, Any], features: list[torch.Tensor]) -> Any:
        layout = self.span.layout
        hidden, encoder = given[layout.hidden_name], given.get(layout.encoder_name)
        if self.opens:
            hidden = hidden + features[0]
            encoder = encoder + features[1] if encoder is not None and self.span.both else encoder
        return layout.give(hidden, encoder)
