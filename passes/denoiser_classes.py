"""Which denoisers of diffusers have what a pass calls; read off its classes, and held to them by a test."""

from __future__ import annotations

FUSES_QKV = (
    "AceStepTransformer1DModel", "AuraFlowTransformer2DModel", "BriaFibo2Transformer2DModel",
    "ChromaTransformer2DModel", "ChronoEditTransformer3DModel", "CogVideoXTransformer3DModel",
    "CogView3PlusTransformer2DModel", "ConsisIDTransformer3DModel", "Cosmos3OmniTransformer", "DreamLiteUNetModel",
    "Flux2Transformer2DModel", "Flux3Transformer2DModel", "FluxTransformer2DModel", "HeliosTransformer3DModel",
    "HunyuanDiT2DModel", "HunyuanImageTransformer2DModel", "HunyuanVideo15Transformer3DModel",
    "HunyuanVideoTransformer3DModel", "I2VGenXLUNet", "Ideogram4Transformer2DModel",
    "JoyImageEditPlusTransformer3DModel", "JoyImageEditTransformer3DModel", "Kandinsky3UNet",
    "Kandinsky5Transformer3DModel", "Kandinsky6SRTransformer3DModel", "Kandinsky6Transformer3DModel",
    "Krea2Transformer2DModel", "LTX2VideoTransformer3DModel", "LTXVideoTransformer3DModel",
    "LongCatImageTransformer2DModel", "MiniMaxH3Transformer3DModel", "MotifVideoTransformer3DModel",
    "NucleusMoEImageTransformer2DModel", "PRXTransformer2DModel", "PixArtTransformer2DModel", "PriorTransformer",
    "QwenImage21Transformer2DModel", "QwenImageTransformer2DModel", "RFD4ProteinaTransformer",
    "SD3Transformer2DModel", "SanaTransformer2DModel", "SanaVideoTransformer3DModel",
    "SanaWMLTX2RefinerTransformer3DModel", "SkyReelsV2Transformer3DModel", "StableAudio3DiTModel",
    "StableAudioDiTModel", "UNet2DConditionModel", "UNet3DConditionModel", "UNetMotionModel",
    "UNetSpatioTemporalConditionModel", "UVit2DModel", "WanAnimate2Transformer3DModel",
    "WanAnimateTransformer3DModel", "WanTransformer3DModel", "WanVACETransformer3DModel",
)  # fmt: skip
"""Classes with `fuse_qkv_projections`."""

REPEATS_BLOCKS = (
    "AnyFlowFARTransformer3DModel", "AnyFlowTransformer3DModel", "BriaFibo2Transformer2DModel",
    "BriaFiboTransformer2DModel", "ChromaTransformer2DModel", "ChronoEditTransformer3DModel",
    "Cosmos3OmniTransformer", "DreamLiteUNetModel", "ErnieImageTransformer2DModel", "Flux2Transformer2DModel",
    "Flux3Transformer2DModel", "FluxTransformer2DModel", "GlmImageTransformer2DModel", "HeliosTransformer3DModel",
    "HunyuanImageTransformer2DModel", "HunyuanVideo15Transformer3DModel", "HunyuanVideoTransformer3DModel",
    "Ideogram4Transformer2DModel", "JoyImageEditPlusTransformer3DModel", "JoyImageEditTransformer3DModel",
    "Kandinsky5Transformer3DModel", "Kandinsky6SRTransformer3DModel", "Kandinsky6Transformer3DModel",
    "Krea2Transformer2DModel", "LTX2VideoTransformer3DModel", "LTXVideoTransformer3DModel",
    "LongCatAudioDiTTransformer", "LongCatImageTransformer2DModel", "MiniMaxH3Transformer3DModel",
    "MiniMaxMusic3Transformer1DModel", "MotifVideoTransformer3DModel", "NucleusMoEImageTransformer2DModel",
    "OvisImageTransformer2DModel", "QwenImage21Transformer2DModel", "QwenImageTransformer2DModel",
    "RFD4ProteinaTransformer", "SanaWMLTX2RefinerTransformer3DModel", "SanaWMTransformer3DModel",
    "SkyReelsV2Transformer3DModel", "StableAudio3DiTModel", "UNet2DConditionModel", "WanAnimate2Transformer3DModel",
    "WanAnimateTransformer3DModel", "WanTransformer3DModel", "WanVACETransformer3DModel",
    "ZImageTransformer2DModel",
)  # fmt: skip
"""Classes that name the blocks `compile_repeated_blocks` compiles."""

DISPATCHES = (
    "ChromaTransformer2DModel",
    "AceStepTransformer1DModel", "AnyFlowFARTransformer3DModel", "AnyFlowTransformer3DModel",
    "BriaFibo2Transformer2DModel", "BriaFiboTransformer2DModel", "BriaTransformer2DModel",
    "ChronoEditTransformer3DModel", "Cosmos3OmniTransformer", "CosmosTransformer3DModel",
    "DreamLiteTransformer2DModel", "ErnieImageTransformer2DModel", "Flux2Transformer2DModel",
    "Flux3Transformer2DModel", "FluxTransformer2DModel", "GlmImageTransformer2DModel", "HeliosTransformer3DModel",
    "HunyuanImageTransformer2DModel", "HunyuanVideo15Transformer3DModel", "HunyuanVideoTransformer3DModel",
    "Ideogram4Transformer2DModel", "JoyImageEditPlusTransformer3DModel", "JoyImageEditTransformer3DModel",
    "Kandinsky5Transformer3DModel", "Kandinsky6SRTransformer3DModel", "Kandinsky6Transformer3DModel",
    "Krea2Transformer2DModel", "LTX2VideoTransformer3DModel", "LTXVideoTransformer3DModel",
    "LongCatAudioDiTTransformer", "LongCatImageTransformer2DModel", "MiniMaxH3Transformer3DModel",
    "MiniMaxMusic3Transformer1DModel", "MotifVideoTransformer3DModel", "NucleusMoEImageTransformer2DModel",
    "OvisImageTransformer2DModel", "PRXTransformer2DModel", "QwenImage21Transformer2DModel",
    "QwenImageTransformer2DModel", "RFD4ProteinaTransformer", "SanaVideoTransformer3DModel",
    "SanaWMLTX2RefinerTransformer3DModel", "SanaWMTransformer3DModel", "SkyReelsV2Transformer3DModel",
    "WanAnimate2Transformer3DModel", "WanAnimateTransformer3DModel", "WanTransformer3DModel",
    "ZImageTransformer2DModel",
)  # fmt: skip
"""Transformers whose attention goes through `dispatch_attention_fn`."""

MASKED = (
    "BriaFibo2Transformer2DModel", "BriaFiboTransformer2DModel", "ChromaTransformer2DModel",
    "HunyuanImageTransformer2DModel", "HunyuanVideo15Transformer3DModel", "HunyuanVideoTransformer3DModel",
    "QwenImage21Transformer2DModel", "QwenImageTransformer2DModel", "ZImageTransformer2DModel",
)  # fmt: skip
"""Those of them that mask the padding of the prompt."""

SPLITS_SEQUENCES = (
    "ChronoEditTransformer3DModel", "Flux2Transformer2DModel", "FluxTransformer2DModel", "HeliosTransformer3DModel",
    "LTX2VideoTransformer3DModel", "LTXVideoTransformer3DModel", "MiniMaxH3Transformer3DModel",
    "QwenImageTransformer2DModel", "WanTransformer3DModel",
)  # fmt: skip
"""Transformers with a plan for context parallelism."""
