"""Engines of ONNX Runtime."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from diffopt.backends.base import JSON, BackendError, Capabilities, EngineOptions, Part, Program, Run, Tensors
from diffopt.backends.onnx_export import MODEL, convert, save

if TYPE_CHECKING:
    import torch

PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
    "openvino": ("OpenVINOExecutionProvider", "CPUExecutionProvider"),
}
"""Execution providers by what runs them, the first that can take an operation takes it."""


class OnnxRuntimeBuilder:
    """Exports with `torch.onnx.export(dynamo=True)` and checks what comes out with `onnx.checker`."""

    name = "onnxruntime"
    packages: tuple[str, ...] = ("onnxruntime", "onnx", "onnxscript")
    capabilities = Capabilities(precisions=("f32", "int8", "int8-dynamic"), devices=("cpu", "cuda"))

    def available(self) -> str | None:
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        return f"the package {missing[0]} is not installed; pip install 'diffopt[cpu]'" if missing else None

    def build(self, part: Part, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        from diffopt.backends.numeric_check import compare

        started = time.perf_counter()
        model = convert(part.module, part.inputs, part.input_names, part.axes())
        if options.precision != "f32":
            from diffopt.backends.onnx_quantize import quantize

            model = quantize(model, options.precision, part.calls, part.input_names)
        save(model, folder)
        seconds = time.perf_counter() - started
        checks = compare(self.load(folder, options), part)
        return {"conversion_s": round(seconds, 3), "operations": len(model.graph.node), **checks}

    def build_program(self, program: Program, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        from diffopt.backends.onnx_program import compose

        if options.precision != "f32":
            raise BackendError("a whole pipeline is not quantized by onnxruntime yet", "export its components")
        started = time.perf_counter()
        model, facts = compose(program)
        save(model, folder)
        return {"conversion_s": round(time.perf_counter() - started, 3), **facts}

    def load(self, folder: Path, options: EngineOptions) -> Run:
        return OnnxRuntimeEngine(folder / MODEL).run


class OnnxRuntimeEngine:
    """A session of a model whose inputs and outputs are bound to memory that stays where it is.

    provider: one of `PROVIDERS`. Raises BackendError if the installed package does not have it.
    """

    def __init__(self, path: Path, provider: str = "cpu") -> None:
        import onnxruntime
        import torch

        wanted = PROVIDERS[provider]
        if wanted[0] not in onnxruntime.get_available_providers():
            raise BackendError(f"the installed onnxruntime has no {wanted[0]}", _PACKAGES[provider])
        settings = onnxruntime.SessionOptions()
        settings.use_deterministic_compute = True
        settings.log_severity_level = 3
        # Left alone it takes a thread a physical core and binds each to one, whatever the process may use: a call then
        # waits for cores that are another's.
        settings.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(str(path), settings, providers=list(wanted))
        self._names = [value.name for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._device = "cuda" if provider in ("cuda", "tensorrt") else "cpu"

    def run(self, inputs: Tensors) -> Tensors:
        if self._device == "cuda":
            return self._run_bound(inputs)
        import torch

        arrays = (value.detach().contiguous().numpy() for value in inputs)
        results = self._session.run(None, dict(zip(self._names, arrays, strict=True)))
        return tuple(torch.from_numpy(numpy.asarray(result)) for result in results)

    def _run_bound(self, inputs: Tensors) -> Tensors:
        """Read and write torch's own memory on the device, so that nothing crosses the bus."""
        binding = self._session.io_binding()
        kept = [value.detach().contiguous() for value in inputs]
        for name, value in zip(self._names, kept, strict=True):
            element = _ELEMENTS[str(value.dtype).removeprefix("torch.")]
            binding.bind_input(name, self._device, value.get_device(), element, tuple(value.shape), value.data_ptr())
        for name in self._outputs:
            binding.bind_output(name, self._device, kept[0].get_device())
        self._session.run_with_iobinding(binding)
        return tuple(_from_device(value) for value in binding.get_outputs())


def _from_device(value: Any) -> torch.Tensor:
    import torch

    found: torch.Tensor = torch.utils.dlpack.from_dlpack(value._ortvalue.to_dlpack())
    return found


_ELEMENTS = {"float32": numpy.float32, "float16": numpy.float16, "int64": numpy.int64, "bool": numpy.bool_}
_PACKAGES = {
    "cpu": "pip install onnxruntime",
    "cuda": "pip install 'diffopt[cuda]', which brings onnxruntime-gpu",
    "tensorrt": "pip install 'diffopt[cuda]', and TensorRT's libraries",
    "openvino": "pip install onnxruntime-openvino, in an environment of its own: it replaces onnxruntime",
}
__all__ = ["MODEL", "PROVIDERS", "OnnxRuntimeBuilder", "OnnxRuntimeEngine", "convert", "save"]
