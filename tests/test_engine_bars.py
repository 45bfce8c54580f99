from __future__ import annotations

from typing import Any

from diffopt.engine_bars import arms, hybrid
from diffopt.passes.pipeline import Trace


def row(component: str, backend: str, ratio: float, precision: str = "f32", error: float = 1e-4) -> dict[str, Any]:
    return {
        "model": "demo:shapes", "component": component, "backend": backend, "precision": precision, "ratio": ratio,
        "relative_l2_error": [error],
    }  # fmt: skip


def test_a_hybrid_takes_the_fastest_engine_of_each_component_that_a_pass_can_make() -> None:
    rows = [
        row("unet", "openvino", 2.0),
        row("unet", "openvino", 4.0, "bf16", 5e-3),
        row("unet", "aotinductor", 9.0, "bf16", 0.1),
        row("vae_decoder", "inductor", 9.0),
        row("vae_decoder", "onnxruntime", 2.0),
        row("vae_encoder", "openvino", 3.0),
        {
            "model": "demo:shapes",
            "component": "text_encoder",
            "backend": "openvino",
            "precision": "f32",
            "failed": "no",
        },
    ]
    found = hybrid(rows)
    assert found == (
        "export{scope=denoiser backend=openvino precision=bf16},export{scope=vae backend=onnxruntime precision=f32}"
    )
    assert len(list(Trace.parse(found))) == 2


def test_every_arm_is_a_trace() -> None:
    for trace in arms().values():
        assert list(Trace.parse(trace))
