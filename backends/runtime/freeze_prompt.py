"""Do once a request what cross-attention makes of the prompt, and leave out what comes to a constant."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import attachment, component_name
from diffopt.backends.runtime.capture_step import FROZEN

if TYPE_CHECKING:
    import torch

Pipe = TypeVar("Pipe")
BUCKET = 64
"""Lengths of prompts are rounded up to multiples of this: one captured loop for each that occurs."""

CLASSES = ("UNet2DConditionModel", "PixArtTransformer2DModel")


@dataclass(frozen=True)
class Variant:
    """What a request's prompt comes to.

    constant: leading samples of the batch whose cross-attention gives the same at every query: all their keys that
        count hold one value. So it is for an unconditional half of zeros (SDXL) or of one token (an empty prompt).
    length: tokens that are attended to.
    masked: whether some of those are padding.
    """

    constant: int
    length: int
    masked: bool


def freeze_prompt(pipe: Pipe, component: str) -> Pipe:
    """Keep keys and values of the prompt for all steps of a captured loop, without padding that is masked away.

    Mathematically the same: masked tokens have no weight, and attention over equal values is that value whatever the
    weights. Requests that no captured loop takes run as they always did.
    Raises BackendError if the component has no cross-attention of a known kind, or is compiled or exported.
    """
    name, state = component_name(pipe, component), attachment(pipe)
    denoiser = getattr(pipe, name)
    for earlier in ("export", "compile", "capture_step", "freeze_prompt"):
        if state.noted(name, earlier) or state.noted("pipeline", earlier):
            raise BackendError(f"{name}: freeze_prompt cannot follow {earlier}")
    kind = type(denoiser).__name__
    if kind not in CLASSES or getattr(denoiser, "encoder_hid_proj", None) is not None:
        raise BackendError(f"{name}: it is not known how {kind} takes its prompt in", f"known: {', '.join(CLASSES)}")
    found = [
        part
        for part in denoiser.modules()
        if type(part).__name__ == "Attention" and getattr(part, "is_cross_attention", False)
    ]
    if not found or not all(map(_plain, found)):
        raise BackendError(f"{name} has no cross-attention, or one with more than keys and values of the prompt")
    frozen = FrozenPrompt(denoiser, found)
    denoiser.__dict__[FROZEN] = frozen
    state.note(name, "freeze_prompt")
    state.witnesses.append(lambda: frozen.witness(name))
    return pipe


class FrozenPrompt:
    """Keys, values and constants of every cross-attention, for each variant of prompt that came up."""

    def __init__(self, denoiser: Any, layers: list[Any]) -> None:
        self._denoiser = denoiser
        self._processors = [FrozenProcessor(layer.processor) for layer in layers]
        self._layers = layers
        for layer, processor in zip(layers, self._processors, strict=True):
            layer.set_processor(processor)
        self._kept: dict[Variant, list[dict[str, Any]]] = {}
        self._requests = self._constant = 0

    def variant(self, given: Mapping[str, Any], guided: bool) -> Variant:
        """Return what a request's prompt comes to; reads from the device once."""
        import torch

        text, mask = given["encoder_hidden_states"], given.get("encoder_attention_mask")
        batch, length = text.shape[:2]
        equal = (text == text[:, :1]).all(dim=2)
        counts = equal.new_full((batch,), length, dtype=torch.int64)
        if mask is not None:
            kept = mask > 0.5
            equal = equal | ~kept
            # Only padding at the end can be cut off.
            tail = (kept.long() * torch.arange(1, length + 1, device=kept.device)).amax(dim=1)
            counts = torch.where(kept[:, 0], tail, length)
            equal &= kept[:, :1]
        ones, lengths = torch.stack([equal.all(dim=1).long(), counts]).tolist()
        leading = batch // 2 if guided else batch
        constant = leading if all(ones[:leading]) else 0
        longest = max(lengths[constant:], default=1)
        cut = min(-(-longest // BUCKET) * BUCKET, length) if mask is not None else length
        self._requests += 1
        self._constant += bool(constant)
        return Variant(constant, cut, mask is not None)

    def load(self, variant: Variant, given: Mapping[str, Any]) -> None:
        """Project the prompt of a request to where captured steps read it."""
        text, mask = given["encoder_hidden_states"], given.get("encoder_attention_mask")
        text = text[:, : variant.length]
        project = getattr(self._denoiser, "caption_projection", None)
        if project is not None:
            text = project(text).view(text.shape[0], -1, self._denoiser.inner_dim)
        rest = text[variant.constant :]
        bias = None
        if mask is not None and len(rest):
            bias = (1 - mask[variant.constant :, : variant.length].to(text.dtype)) * -10000.0
            bias = bias[:, None, None, :]
        made = []
        for layer in self._layers:
            entry: dict[str, Any] = {"bias": bias}
            if len(rest):
                entry |= {"key": _heads(layer.to_k(rest), layer), "value": _heads(layer.to_v(rest), layer)}
            if variant.constant:
                entry["constant"] = layer.to_out[0](layer.to_v(text[: variant.constant, :1]))
            made.append(entry)
        kept = self._kept.get(variant)
        if kept is None:
            self._kept[variant] = [
                {key: None if value is None else value.contiguous().clone() for key, value in entry.items()}
                for entry in made
            ]
            return
        for old, new in zip(kept, made, strict=True):
            for key, value in new.items():
                if value is not None:
                    old[key].copy_(value)

    @contextlib.contextmanager
    def entered(self, variant: Any) -> Iterator[None]:
        """Let all cross-attentions read what is kept for a variant."""
        for processor, entry in zip(self._processors, self._kept[variant], strict=True):
            processor.constant, processor.key = entry.get("constant"), entry.get("key")
            processor.value, processor.bias = entry.get("value"), entry["bias"]
            processor.active = True
        try:
            yield
        finally:
            for processor in self._processors:
                processor.active = False

    def witness(self, name: str) -> Witness:
        count = len(self._layers) * self._requests
        detail = f"{name}: {count} projections of the prompt kept; {self._constant} requests with a constant half"
        return Witness("freeze_prompt", count, detail)


class FrozenProcessor:
    """Attention to a prompt whose keys and values are there already."""

    def __init__(self, original: Any) -> None:
        self.original = original
        self.active = False
        self.constant: torch.Tensor | None = None
        self.key: torch.Tensor | None = None
        self.value: torch.Tensor | None = None
        self.bias: torch.Tensor | None = None

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        if not self.active:
            kept: torch.Tensor = self.original(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
            return kept
        batch, queries, width = hidden_states.shape
        with_key = 0 if self.key is None else self.key.shape[0]
        constant = max(batch - with_key, 0)
        parts = []
        if constant and self.constant is not None:
            parts.append(self.constant.expand(constant, queries, width))
        if self.key is not None and self.value is not None:
            asked = _heads(attn.to_q(hidden_states[constant:]), attn)
            seen = scaled_dot_product_attention(asked, self.key, self.value, attn_mask=self.bias)
            parts.append(attn.to_out[0](seen.transpose(1, 2).reshape(batch - constant, queries, -1)))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _heads(value: torch.Tensor, layer: Any) -> torch.Tensor:
    """Part the channels of a projection into heads: (batch, heads, tokens, channels of a head)."""
    return value.view(*value.shape[:2], layer.heads, -1).transpose(1, 2)


def _plain(layer: Any) -> bool:
    """Tell whether a layer is nothing but projections and attention."""
    absent = ("norm_q", "norm_k", "norm_cross", "group_norm", "spatial_norm", "added_kv_proj_dim")
    return (
        all(getattr(layer, name, None) is None for name in absent)
        and not layer.residual_connection
        and layer.rescale_output_factor == 1
        and type(layer.processor).__name__ in ("AttnProcessor2_0", "FusedAttnProcessor2_0")
    )
