"""Engines of ONNX Runtime."""

from __future__ import annotations

import importlib.util
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from diffopt.backends.base import JSON, BackendError, Capabilities, EngineOptions, Part, Program, Run, Tensors

if TYPE_CHECKING:
    import torch

MODEL = "model.onnx"
LARGEST_FILE = 2**30
"""Protocol buffers end at 2 GiB; larger models keep their weights in a file beside."""


class OnnxRuntimeBuilder:
    """Exports with `torch.onnx.export(dynamo=True)` and checks what comes out with `onnx.checker`."""

    name = "onnxruntime"
    packages = ("onnxruntime", "onnx", "onnxscript")
    capabilities = Capabilities(precisions=("f32",))

    def available(self) -> str | None:
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        return f"the package {missing[0]} is not installed; pip install 'diffopt[cpu]'" if missing else None

    def build(self, part: Part, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        from diffopt.backends.numeric_check import compare

        started = time.perf_counter()
        model = convert(part.module, part.inputs, part.input_names, part.batched)
        save(model, folder)
        seconds = time.perf_counter() - started
        checks = compare(self.load(folder, options), part)
        return {"conversion_s": round(seconds, 3), "operations": len(model.graph.node), **checks}

    def build_program(self, program: Program, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        from diffopt.backends.onnx_program import compose

        started = time.perf_counter()
        model, facts = compose(program)
        save(model, folder)
        return {"conversion_s": round(time.perf_counter() - started, 3), **facts}

    def load(self, folder: Path, options: EngineOptions) -> Run:
        import onnxruntime
        import torch

        settings = onnxruntime.SessionOptions()
        settings.use_deterministic_compute = True
        settings.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(folder / MODEL), settings, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]

        def run(inputs: Tensors) -> Tensors:
            arrays = (value.detach().contiguous().numpy() for value in inputs)
            results = session.run(None, dict(zip(names, arrays, strict=True)))
            return tuple(torch.from_numpy(numpy.asarray(result)) for result in results)

        return run


def convert(
    module: torch.nn.Module, inputs: Tensors, names: tuple[str, ...], batched: tuple[bool, ...] | None = None
) -> Any:
    """Convert a module with tensor arguments and results; `batched` inputs get an open first dimension.

    Raises BackendError if the exporter cannot take it.
    """
    import torch

    open_batch = batched or (False,) * len(inputs)
    # A batch of one would be taken for a constant.
    examples = tuple(_at_least_two(v) if b else v for v, b in zip(inputs, open_batch, strict=True))
    shapes = tuple({0: torch.export.Dim("batch")} if b else {} for b in open_batch)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                module, examples, dynamo=True, dynamic_shapes={"inputs": shapes} if _variadic(module) else shapes,
                input_names=list(names), verbose=False, optimize=True,
            )  # fmt: skip
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BackendError(f"torch.onnx cannot export {type(module).__name__}: {lines[0]}") from error
    if made is None:
        raise BackendError(f"torch.onnx cannot export {type(module).__name__}")
    model = made.model_proto
    if len(model.graph.input) != len(inputs):
        raise BackendError(f"ONNX sees {len(model.graph.input)} of {len(inputs)} inputs of {type(module).__name__}")
    return model


def save(model: Any, folder: Path) -> None:
    """Write model.onnx, checked; large weights into a file beside it."""
    import onnx

    external = model.ByteSize() > LARGEST_FILE
    onnx.save_model(model, str(folder / MODEL), save_as_external_data=external, location="model.bin")
    onnx.checker.check_model(str(folder / MODEL))


def _variadic(module: torch.nn.Module) -> bool:
    import inspect

    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    return inspect.Parameter.VAR_POSITIONAL in kinds


def _at_least_two(value: torch.Tensor) -> torch.Tensor:
    return value if value.shape[0] > 1 else value.repeat(2, *(1,) * (value.ndim - 1))
