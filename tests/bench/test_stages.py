import pytest
import torch

from diffopt.bench.stages import AROUND, scaled, stage_times


class Clock:
    """Time that passes only where a part says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Part(torch.nn.Module):
    def __init__(self, clock: Clock, seconds: float, inner: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.clock, self.seconds, self.inner = clock, seconds, inner

    def forward(self) -> None:
        self.clock.now += self.seconds
        if self.inner is not None:
            self.inner()

    def decode(self) -> None:
        self.clock.now += self.seconds


def test_a_call_is_told_apart_by_component_and_leaves_the_pipeline_as_it_was() -> None:
    clock = Clock()
    encoder, vae = Part(clock, 2), Part(clock, 3)
    unet = Part(clock, 4, encoder)

    class Pipe:
        components = {"text_encoder": encoder, "unet": unet, "vae": vae, "tokenizer": "no module"}

    def call() -> None:
        encoder()
        unet()
        unet()
        vae.decode()
        clock.now += 5

    times = stage_times(Pipe(), call, runs=3, clock=clock)
    # The denoiser calls the encoder, and that time is the denoiser's alone.
    assert times == pytest.approx({"text_encoder": 2, "unet": 12, "vae": 3, AROUND: 5})
    assert all(not {"forward", "decode"} & part.__dict__.keys() for part in (encoder, unet, vae))


def test_scaled_times_keep_their_shares() -> None:
    assert scaled({"a": 1.0, "b": 3.0}, 2.0) == {"a": 0.5, "b": 1.5}
    assert scaled({}, 2.0) == {}
