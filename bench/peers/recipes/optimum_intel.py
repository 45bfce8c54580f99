"""optimum-intel: OpenVINO pipelines by one call, reshaped to one size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffopt.bench.peers.calling import Called, forgive_torchvision, with_steps
from diffopt.bench.peers.peer import Peer

PEER = Peer(
    name="optimum-intel 2.2.0",
    kind="packaged",
    source="https://github.com/huggingface/optimum-intel",
    licence="Apache-2.0",
    environment="optimum-intel",
    arms={
        "bf16, as it is": {"precision": "bf16", "renamed": False},
        "bf16": {"precision": "bf16"},
        "f32": {"precision": "f32"},
        "bf16, DPM++, 10 steps": {"precision": "bf16", "steps": 10, "solver": "dpm++"},
        "bf16, DPM++, 5 steps": {"precision": "bf16", "steps": 5, "solver": "dpm++"},
        "bf16, DPM++, 3 steps": {"precision": "bf16", "steps": 3, "solver": "dpm++"},
        "bf16, DPM++, 2 steps": {"precision": "bf16", "steps": 2, "solver": "dpm++"},
    },
    note="It wants an older transformers, which finds the text encoder's weights under other names than they were saved under; "
    "as it is, it warns and makes wrong pictures. All other arms read a copy with the names it expects.",
)


def load(
    model: str,
    device: str,
    engines: Any,
    *,
    call: dict[str, Any],
    precision: str,
    renamed: bool = True,
    steps: int = 0,
    solver: str = "",
) -> Any:
    """Return optimum-intel's pipeline of the model."""
    forgive_torchvision()
    from optimum.intel import OVPipelineForText2Image

    source = _renamed(Path(model), Path(engines)) if renamed else Path(model)
    folder = Path(engines) / f"optimum-intel-{Path(model).parent.name}-{int(renamed)}"
    if not (folder / "model_index.json").exists():
        OVPipelineForText2Image.from_pretrained(source, export=True, compile=False).save_pretrained(folder)
    hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    pipe = OVPipelineForText2Image.from_pretrained(folder, compile=False, ov_config=hints)
    pipe.set_progress_bar_config(disable=True)
    pipe.reshape(batch_size=1, height=call["height"], width=call["width"], num_images_per_prompt=1)
    pipe.compile()
    return Called(pipe, with_steps(pipe, call, steps, solver, ""))


def _renamed(model: Path, engines: Path) -> Path:
    """Return a copy of the model whose text encoder has the names of older versions; the model itself if it has them."""
    import shutil

    from safetensors.torch import load_file, save_file

    weights = "text_encoder/model.safetensors"
    held = load_file(model / weights)
    if "CLIP" not in (model / "text_encoder" / "config.json").read_text() or any("text_model" in n for n in held):
        return model
    copy = engines / f"renamed-{model.parent.name}"
    if not (copy / "done").exists():
        shutil.copytree(model, copy, dirs_exist_ok=True)
        save_file({f"text_model.{name}": value for name, value in held.items()}, copy / weights, {"format": "pt"})
        (copy / "done").touch()
    return copy
