"""Full and shallow passes of a UNet, in the manner of DeepCache (arXiv 2312.00858), as plain modules.

The up path of a UNet is a row of layers (a resnet, then perhaps an attention). `branch` b is the number of last layers
minus one that a shallow pass still computes; what enters the first of them is the deep feature a full pass hands out.
"""

from __future__ import annotations

from typing import Any

import torch

from diffopt.backends.base import BackendError, Tensors
from diffopt.backends.runtime.denoiser_call import DenoiserModule

UNSUPPORTED = ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type")
"""Configuration entries of UNet2DConditionModel under which the passes here would leave something out."""

RESIDUALS = ("down_block_additional_residuals", "mid_block_additional_residual")
"""What a ControlNet adds to a UNet's skip connections, and to its middle."""

KNOWN = {"sample", "timestep", "encoder_hidden_states", "added_cond_kwargs", "timestep_cond", *RESIDUALS}
"""Arguments of a UNet's call that a shallow pass heeds."""


def refuse_feature_cache(unet: Any, branch: int) -> None:
    """Raise BackendError if the UNet cannot run in full and shallow passes."""
    kind = type(unet).__name__
    if not hasattr(unet, "up_blocks") or not hasattr(unet, "conv_in"):
        raise BackendError(f"{kind} is no UNet2DConditionModel: its features cannot be cached")
    extra = [name for name in UNSUPPORTED if unet.config.get(name) is not None]
    if unet.config.get("addition_embed_type") not in (None, "text", "text_time"):
        extra.append("addition_embed_type")
    if extra or unet.config.get("center_input_sample"):
        raise BackendError(f"a feature cache cannot follow {(extra or ['center_input_sample'])[0]} of this UNet")
    layers = sum(len(block.resnets) for block in unet.up_blocks)
    if not 0 <= branch < layers:
        raise BackendError(f"branch {branch} is not one of the UNet's {layers} up layers", f"0 to {layers - 1}")


class FullPass(DenoiserModule):
    """The whole UNet, and the deep feature with it."""

    def __init__(self, unet: Any, branch: int) -> None:
        super().__init__(unet)
        self.branch = branch

    def forward(self, *inputs: torch.Tensor) -> Tensors:
        unet: Any = self.denoiser
        resnet = _up_layers(unet)[-1 - self.branch][0]
        seen: list[torch.Tensor] = []
        handle = resnet.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            out = self.run(inputs)
        finally:
            handle.remove()
        # A layer gets its deep input and its skip connection joined; keep the first.
        channels = resnet.in_channels - _skip_channels(unet)[self.branch]
        return out, seen[0][:, :channels].contiguous()


class ShallowPass(DenoiserModule):
    """The top of the UNet alone, on a deep feature from an earlier full pass, which is its last input."""

    def __init__(self, unet: Any, branch: int) -> None:
        super().__init__(unet)
        self.branch = branch

    def forward(self, *inputs: torch.Tensor) -> Tensors:
        unet: Any = self.denoiser
        *tensors, hidden = inputs
        wanted = tensors[0].dtype
        # The features tell in which type the network computes, which need not be the latent's.
        given = self.shape.arguments(tuple(t.to(hidden.dtype) if t.is_floating_point() else t for t in tensors))
        sample, timestep, encoded = given["sample"], given["timestep"], given["encoder_hidden_states"]
        embedded = unet.time_embedding(
            unet.get_time_embed(sample=sample, timestep=timestep), given.get("timestep_cond")
        )
        added = unet.get_aug_embed(
            emb=embedded, encoder_hidden_states=encoded, added_cond_kwargs=given.get("added_cond_kwargs")
        )
        embedded = embedded if added is None else embedded + added
        if unet.time_embed_act is not None:
            embedded = unet.time_embed_act(embedded)
        skips = self._skips(sample, embedded, encoded)
        # A shallow pass ends above the middle, whose residual is in the deep feature.
        added_to = given.get(RESIDUALS[0], ())
        skips = [skip + more for skip, more in zip(skips, added_to[: len(skips)], strict=True)] if added_to else skips
        for resnet, attention, upsamplers in _up_layers(unet)[-1 - self.branch :]:
            hidden = resnet(torch.cat([hidden, skips.pop()], dim=1), embedded)
            if attention is not None:
                hidden = attention(hidden, encoder_hidden_states=encoded, return_dict=False)[0]
            for upsampler in upsamplers:
                size = skips[-1].shape[2:]
                same = all(2 * a == b for a, b in zip(hidden.shape[2:], size, strict=True))
                hidden = upsampler(hidden) if same else upsampler(hidden, size)
        if unet.conv_norm_out:
            hidden = unet.conv_act(unet.conv_norm_out(hidden))
        return (unet.conv_out(hidden).to(wanted),)

    def _skips(self, sample: torch.Tensor, embedded: torch.Tensor, encoded: torch.Tensor) -> list[torch.Tensor]:
        """Return the first branch + 1 skip connections of the down path."""
        unet: Any = self.denoiser
        hidden = unet.conv_in(sample)
        skips = [hidden]
        for block in unet.down_blocks:
            for resnet, attention in zip(block.resnets, _attentions(block), strict=True):
                if len(skips) > self.branch:
                    return skips
                hidden = resnet(hidden, embedded)
                if attention is not None:
                    hidden = attention(hidden, encoder_hidden_states=encoded, return_dict=False)[0]
                skips.append(hidden)
            if block.downsamplers is not None and len(skips) <= self.branch:
                for downsampler in block.downsamplers:
                    hidden = downsampler(hidden)
                skips.append(hidden)
        return skips


def _attentions(block: Any) -> list[Any]:
    return list(block.attentions) if getattr(block, "has_cross_attention", False) else [None] * len(block.resnets)


def _up_layers(unet: Any) -> list[tuple[Any, Any, list[Any]]]:
    """Return every layer of the up path: resnet, attention or None, upsamplers that follow it."""
    layers = []
    for block in unet.up_blocks:
        for index, (resnet, attention) in enumerate(zip(block.resnets, _attentions(block), strict=True)):
            last = index == len(block.resnets) - 1 and block.upsamplers is not None
            layers.append((resnet, attention, list(block.upsamplers) if last else []))
    return layers


def _skip_channels(unet: Any) -> list[int]:
    channels = [unet.conv_in.out_channels]
    for block in unet.down_blocks:
        channels += [resnet.out_channels for resnet in block.resnets]
        if block.downsamplers is not None:
            channels += [downsampler.out_channels for downsampler in block.downsamplers]
    return channels
