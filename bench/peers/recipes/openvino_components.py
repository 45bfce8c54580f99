"""OpenVINO by hand, part by part: denoiser, text encoder and VAE decoder as engines in the diffusers pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffopt.bench.peers.calling import Called, denoiser_name, plain, with_steps
from diffopt.bench.peers.peer import Peer

PEER = Peer(
    name="OpenVINO 2026.4.1, part by part",
    kind="by hand",
    source="https://docs.openvino.ai (convert_model, compile_model, INFERENCE_PRECISION_HINT)",
    licence="Apache-2.0",
    arms={
        "f32, steps kept": {"precision": "f32"},
        "bf16, steps kept": {"precision": "bf16"},
        "bf16, 10 steps": {"precision": "bf16", "steps": 10},
        "bf16, DPM++, 5 steps": {"precision": "bf16", "steps": 5, "solver": "dpm++"},
        "bf16, DPM++, 3 steps": {"precision": "bf16", "steps": 3, "solver": "dpm++"},
        "bf16, DPM++, 2 steps": {"precision": "bf16", "steps": 2, "solver": "dpm++"},
    },
)


def load(
    model: str,
    device: str,
    engines: Any,
    *,
    call: dict[str, Any],
    precision: str,
    steps: int = 0,
    solver: str = "",
    spacing: str = "",
) -> Any:
    """Return the pipeline with its networks replaced by OpenVINO's."""
    import torch

    pipe = plain(model)
    made = Called(pipe, with_steps(pipe, call, steps, solver, spacing))
    name, words = denoiser_name(pipe), _words(pipe)
    latents = torch.randn(2, 4, *(call[side] // pipe.vae_scale_factor for side in ("height", "width")))
    time = torch.tensor([500, 500])
    width = pipe.text_encoder.config.d_model if name == "transformer" else pipe.text_encoder.config.hidden_size
    state = torch.randn(2, words, width)
    masks = (torch.ones(2, words),) if name == "transformer" else ()
    folder = Path(engines) / f"by-hand-{Path(model).parent.name}-{precision}"
    denoiser, text, vae = getattr(pipe, name), pipe.text_encoder, pipe.vae
    run = _engine(_Denoiser(denoiser), (latents, time, state, *masks), folder / "denoiser.xml", precision)
    setattr(pipe, name, _EngineDenoiser(denoiser, run))
    tokens = (torch.ones(1, words, dtype=torch.int64), torch.ones(1, words, dtype=torch.int64))[: 1 + len(masks)]
    encode = _engine(_Encoder(text), tokens, folder / "text.xml", precision)
    pipe.text_encoder = _EngineEncoder(text, encode, len(tokens))
    decode = _engine(_Decoder(vae), (latents[:1],), folder / "vae.xml", precision)
    vae.decode = lambda latents, *rest, **named: (decode(latents),)
    return made


def _words(pipe: Any) -> int:
    """Return how many tokens the denoiser reads: of PixArt-Sigma 300, whatever its tokenizer could hold."""
    return 300 if denoiser_name(pipe) == "transformer" else int(pipe.tokenizer.model_max_length)


def _engine(module: Any, inputs: tuple[Any, ...], path: Path, precision: str) -> Any:
    import openvino
    import torch

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            made = openvino.convert_model(module, example_input=inputs, input=[list(value.shape) for value in inputs])
        openvino.save_model(made, path, compress_to_fp16=False)
    hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(path, "CPU", hints)

    def run(*values: Any) -> Any:
        return torch.from_numpy(compiled([value.numpy() for value in values])[0].copy())

    return run


def _Denoiser(denoiser: Any) -> Any:
    import torch

    class Denoiser(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.denoiser = denoiser

        def forward(self, latents: Any, time: Any, state: Any, mask: Any = None) -> Any:
            if mask is None:
                return denoiser(latents, time, state, return_dict=False)[0]
            nothing = {"resolution": None, "aspect_ratio": None}
            return denoiser(
                latents, encoder_hidden_states=state, timestep=time, encoder_attention_mask=mask,
                added_cond_kwargs=nothing, return_dict=False,
            )[0]  # fmt: skip

    return Denoiser().eval()


def _Encoder(encoder: Any) -> Any:
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, tokens: Any, mask: Any = None) -> Any:
            return encoder(tokens)[0] if mask is None else encoder(tokens, attention_mask=mask)[0]

    return Encoder().eval()


def _Decoder(vae: Any) -> Any:
    import torch

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.post, self.decoder = vae.post_quant_conv, vae.decoder

        def forward(self, latents: Any) -> Any:
            return self.decoder(latents if self.post is None else self.post(latents))

    return Decoder().eval()


class _Standing:
    """An engine in a network's place: what a pipeline asks of it beside calling it."""

    def __init__(self, module: Any, run: Any) -> None:
        self.config, self.dtype, self.device, self.run = module.config, module.dtype, module.device, run


class _EngineDenoiser(_Standing):
    def __call__(self, sample: Any, timestep: Any = None, state: Any = None, **named: Any) -> Any:
        state = named["encoder_hidden_states"] if state is None else state
        mask = named.get("encoder_attention_mask")
        more = () if mask is None else (mask.float(),)
        return (self.run(sample, timestep.expand(len(sample)), state, *more),)


class _EngineEncoder(_Standing):
    def __init__(self, module: Any, run: Any, inputs: int) -> None:
        super().__init__(module, run)
        self.inputs = inputs

    def __call__(self, tokens: Any, attention_mask: Any = None, **named: Any) -> Any:
        return (self.run(*(tokens, attention_mask)[: self.inputs]),)
