"""Olive: the denoiser through its own conversion to ONNX, in the diffusers pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffopt.bench.peers.calling import Called, denoiser_name, plain, with_steps
from diffopt.bench.peers.peer import Peer

PEER = Peer(
    name="Olive 0.13.0",
    kind="packaged",
    source="https://github.com/microsoft/Olive",
    licence="MIT",
    environment="olive",
    arms={"olive optimize, f32": {"precision": "fp32"}, "olive optimize, int8": {"precision": "int8"}},
    note="its command is given the model directory; what it writes would be run by ONNX Runtime",
)


def load(model: str, device: str, engines: Any, *, call: dict[str, Any], precision: str) -> Any:
    """Return the pipeline with the denoiser that Olive's command wrote."""
    import subprocess
    import sys

    pipe = plain(model)
    name = denoiser_name(pipe)
    folder = Path(engines) / f"olive-{Path(model).parent.name}-{precision}"
    command = [
        sys.executable, "-I", "-m", "olive", "optimize", "--model_name_or_path", model, "--output_path", str(folder),
        "--provider", "CPUExecutionProvider", "--precision", precision,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise RuntimeError(f"olive optimize: {said[-1] if said else 'nothing said'}")
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.onnx"))
    if not any(name in path for path in found):
        raise RuntimeError(f"olive optimize wrote no {name}: {found}")
    raise NotImplementedError(f"olive optimize wrote {found}; nothing here runs them yet")
    return Called(pipe, with_steps(pipe, call, 0, "", ""))
