"""OpenVINO by hand, whole: one graph from token ids and noise to the picture, the steps unrolled.

The best we could write without diffopt: guidance and the scheduler's own arithmetic traced into the graph with constant
timesteps, the empty prompt encoded once, padding cut off where it is masked, bf16, and Python only for the tokenizer and the noise.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from diffopt.bench.peers.calling import denoiser_name, plain, with_steps
from diffopt.bench.peers.peer import Peer

PEER = Peer(
    name="OpenVINO 2026.4.1, one graph",
    kind="by hand",
    source="bench/peers/recipes/openvino_whole.py",
    licence="Apache-2.0",
    arms={
        **{f"bf16, DEIS trailing, {steps} steps": {"steps": steps, "solver": "deis", "spacing": "trailing"}
           for steps in (10, 8)},
        **{f"bf16, DEIS leading, {steps} steps": {"steps": steps, "solver": "deis", "spacing": "leading"}
           for steps in (5, 4, 3)},
        **{f"bf16, DPM++ leading, {steps} steps": {"steps": steps, "solver": "dpm++", "spacing": "leading"}
           for steps in (3, 2)},
    },
    note="solvers and spacings were chosen on other prompts, of a model like these",
)  # fmt: skip


def load(model: str, device: str, engines: Any, *, call: dict[str, Any], steps: int, solver: str, spacing: str) -> Any:
    """Return what answers a prompt with one call of one graph."""
    import openvino
    import torch

    pipe = plain(model)
    call = with_steps(pipe, call, steps, solver, spacing)
    graph = _graph(pipe, call)
    text = f"{model} {sorted(call.items())} {solver} {spacing}"
    path = Path(engines) / f"one-graph-{hashlib.sha256(text.encode()).hexdigest()[:16]}.xml"
    noise = torch.randn(1, 4, *(call[side] // pipe.vae_scale_factor for side in ("height", "width")))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tokens = _tokens(pipe, "a red circle")
        with torch.no_grad():
            made = openvino.convert_model(
                graph, example_input=(*tokens, noise), input=[list(value.shape) for value in (*tokens, noise)]
            )
        openvino.save_model(made, path, compress_to_fp16=False)
    hints = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(path, "CPU", hints)
    return _OneGraph(pipe, compiled.create_infer_request(), tuple(noise.shape))


class _OneGraph:
    """A pipeline that is one graph."""

    def __init__(self, pipe: Any, request: Any, shape: tuple[int, ...]) -> None:
        self._pipe, self._request, self._shape = pipe, request, shape

    def __call__(self, prompt: Any, *, generator: Any, output_type: str = "np") -> Any:
        import numpy
        import torch
        from diffusers.pipelines.pipeline_utils import ImagePipelineOutput

        prompts = [prompt] if isinstance(prompt, str) else prompt
        generators = generator if isinstance(generator, list) else [generator]
        made = []
        for words, source in zip(prompts, generators, strict=True):
            noise = torch.randn(self._shape, generator=source)
            tokens = [value.numpy() for value in _tokens(self._pipe, words)]
            made.append(self._request.infer([*tokens, noise.numpy()])[0].copy())
        return ImagePipelineOutput(images=numpy.concatenate(made))


WORDS = 64
"""Tokens that a transformer is given: the rest of its 300 is padding, masked in every attention."""


def _tokens(pipe: Any, prompt: str) -> tuple[Any, ...]:
    """Return token ids, and for a transformer their mask."""
    if denoiser_name(pipe) == "unet":
        length = pipe.tokenizer.model_max_length
        read = pipe.tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return (read.input_ids,)
    prompt = prompt.lower().strip()
    read = pipe.tokenizer(prompt, padding="max_length", max_length=WORDS, truncation=True, return_tensors="pt")
    return read.input_ids, read.attention_mask


def _graph(pipe: Any, call: dict[str, Any]) -> Any:
    import torch

    denoiser, scheduler, vae, text = getattr(pipe, denoiser_name(pipe)), pipe.scheduler, pipe.vae, pipe.text_encoder
    masked, guidance = denoiser_name(pipe) == "transformer", call["guidance_scale"]

    def encode(tokens: Any, mask: Any) -> Any:
        return text(tokens, attention_mask=mask)[0] if masked else text(tokens)[0]

    with torch.no_grad():
        empty: tuple[Any, ...] = (*_tokens(pipe, ""), None)[:2]
        nothing = encode(*empty)

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.denoiser, self.decoder, self.post, self.text = denoiser, vae.decoder, vae.post_quant_conv, text

        def forward(self, tokens: Any, second: Any, third: Any = None) -> Any:
            mask: Any = second if masked else None
            latents = third if masked else second
            state = torch.cat([nothing, encode(tokens, mask)])
            masks = torch.cat([empty[1], mask]).float() if masked else None
            scheduler.set_timesteps(call["num_inference_steps"])
            latents = latents * scheduler.init_noise_sigma
            for time in scheduler.timesteps:
                both = scheduler.scale_model_input(torch.cat([latents, latents]), time)
                if masked:
                    found = denoiser(
                        both, encoder_hidden_states=state, timestep=time.expand(2), encoder_attention_mask=masks,
                        added_cond_kwargs={"resolution": None, "aspect_ratio": None}, return_dict=False,
                    )[0]  # fmt: skip
                else:
                    found = denoiser(both, time, state, return_dict=False)[0]
                without, with_words = found.chunk(2)
                guided = without + guidance * (with_words - without)
                latents = scheduler.step(guided, time, latents, return_dict=False)[0]
            latents = latents / vae.config.scaling_factor
            image = self.decoder(latents if self.post is None else self.post(latents))
            return (image / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)

    return Whole().eval()
