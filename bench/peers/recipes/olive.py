"""Olive: its conversion of a diffusers model to ONNX, and the denoiser of it run by ONNX Runtime in the diffusers pipeline."""

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
    arms={
        "OnnxConversion": {"passes": ("OnnxConversion",)},
        "OnnxConversion, OnnxPeepholeOptimizer": {"passes": ("OnnxConversion", "OnnxPeepholeOptimizer")},
        "OnnxConversion, OnnxPeepholeOptimizer, DPM++, 3 steps": {
            "passes": ("OnnxConversion", "OnnxPeepholeOptimizer"),
            "steps": 3,
            "solver": "dpm++",
        },
    },
    note="its command `optimize` takes language models alone; passes are named one by one",
)


def load(
    model: str,
    device: str,
    engines: Any,
    *,
    call: dict[str, Any],
    passes: tuple[str, ...],
    steps: int = 0,
    solver: str = "",
) -> Any:
    """Return the pipeline with the denoiser that Olive wrote."""
    import onnxruntime

    pipe = plain(model)
    name = denoiser_name(pipe)
    folder = Path(engines) / f"olive-{Path(model).parent.name}-{len(passes)}"
    if not (folder / "done").exists():
        _convert(model, folder, passes)
    found = [path for path in sorted(folder.rglob("*.onnx")) if name in str(path.relative_to(folder))]
    if not found:
        written = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.onnx"))
        raise RuntimeError(f"Olive wrote no {name}, but {written}")
    session = onnxruntime.InferenceSession(str(found[0]), providers=["CPUExecutionProvider"])
    made = Called(pipe, with_steps(pipe, call, steps, solver, ""))
    setattr(pipe, name, _Denoiser(getattr(pipe, name), session))
    return made


def _convert(model: str, folder: Path, passes: tuple[str, ...]) -> None:
    import os

    os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"
    from olive.workflows import run

    run(
        {
            "input_model": {"type": "DiffusersModel", "model_path": model},
            "passes": {name.lower(): {"type": name} for name in passes},
            "output_dir": str(folder),
            "cache_dir": str(folder / "cache"),
        }
    )
    (folder / "done").touch()


class _Denoiser:
    """The engine in the network's place: what a pipeline asks of it beside calling it."""

    def __init__(self, module: Any, session: Any) -> None:
        self.config, self.dtype, self.device, self.session = module.config, module.dtype, module.device, session
        self.kinds = {value.name: value.type for value in session.get_inputs()}

    def __call__(self, sample: Any, timestep: Any = None, **named: Any) -> Any:
        import torch

        given = {"sample": sample, "hidden_states": sample, "timestep": timestep.expand(len(sample)), **named}
        wanted = {name: given[name].numpy() for name in self.kinds}
        for name, kind in self.kinds.items():
            wanted[name] = wanted[name].astype("int64" if "int64" in kind else "float32")
        return (torch.from_numpy(self.session.run(None, wanted)[0]),)
