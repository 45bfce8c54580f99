"""Engines of OpenVINO, for processors."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from diffopt.backends.base import JSON, Axes, BackendError, Capabilities, EngineOptions, Part, Program, Run, Tensors
from diffopt.backends.one_thread import one_thread
from diffopt.backends.openvino_rewrites import flatten_group_norms

if TYPE_CHECKING:
    import torch

MODEL = "model.xml"
COMPILED_SHAPES = 8
"""An engine of a part is compiled once for each batch size it meets, up to so many."""


def import_openvino() -> Any:
    """Import openvino without its telemetry, which would report the very import over the network.

    The package goes without where `openvino_telemetry` is not installed, so that is what it is told.
    """
    loaded = {"openvino", "openvino_telemetry"} & sys.modules.keys()
    if not loaded:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        if not loaded:
            del sys.modules["openvino_telemetry"]


class OpenVinoBuilder:
    """Converts through the PyTorch frontend directly: `openvino.convert_model` would report to telemetry."""

    name = "openvino"
    packages: tuple[str, ...] = ("openvino",)
    capabilities = Capabilities(precisions=("f32", "bf16", "f16"), dynamic_int8=True)

    def available(self) -> str | None:
        if importlib.util.find_spec("openvino") is None:
            return "the package openvino is not installed; pip install 'diffopt[cpu]'"
        return None

    def build(self, part: Part, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        from diffopt.backends.numeric_check import compare

        started = time.perf_counter()
        model = convert(part.module, part.inputs, part.input_names, part.axes())
        save(model, folder)
        seconds = time.perf_counter() - started
        checks = compare(self.load(folder, options), part)
        return {"conversion_s": round(seconds, 3), **_facts(model), **checks}

    def build_program(self, program: Program, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        from diffopt.backends.openvino_program import compose

        started = time.perf_counter()
        model, facts = compose(program)
        save(model, folder)
        return {"conversion_s": round(time.perf_counter() - started, 3), **_facts(model), **facts}

    def load(self, folder: Path, options: EngineOptions) -> Run:
        return OpenVinoEngine(folder / MODEL, options).run


def engine_config(options: EngineOptions) -> dict[str, str]:
    """Return OpenVINO's properties for an engine."""
    return {
        "INFERENCE_PRECISION_HINT": options.precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        # OpenVINO's own default is to multiply integers wherever weights have 8 bits.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32" if options.dynamic_int8 else "0",
    }


class OpenVinoEngine:
    """A loaded model, compiled for every combination of input shapes it meets."""

    def __init__(self, path: Path, options: EngineOptions) -> None:
        openvino = import_openvino()
        self._core = openvino.Core()
        self._model = self._core.read_model(path)
        self._config = engine_config(options)
        self._compiled: dict[tuple[tuple[int, ...], ...], _Request] = {}
        if not self._model.is_dynamic():
            self._request(tuple(tuple(port.shape) for port in self._model.inputs))

    def run(self, inputs: Tensors) -> Tensors:
        return self._request(tuple(tuple(value.shape) for value in inputs)).run(inputs)

    def _request(self, shapes: tuple[tuple[int, ...], ...]) -> _Request:
        found = self._compiled.get(shapes)
        if found is not None:
            return found
        model = self._model
        if model.is_dynamic():
            if len(self._compiled) >= COMPILED_SHAPES:
                self._compiled.clear()
            model = model.clone()
            model.reshape({index: list(shape) for index, shape in enumerate(shapes)})
        made = self._compiled[shapes] = _Request(self._core.compile_model(model, "CPU", self._config))
        return made


class _Request:
    """One inference request with inputs and outputs that stay where they are."""

    def __init__(self, compiled: Any) -> None:
        import torch

        openvino = import_openvino()
        self._request = compiled.create_infer_request()
        self._inputs = []
        for index, port in enumerate(compiled.inputs):
            array = numpy.zeros(tuple(port.shape), port.element_type.to_dtype())
            self._request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
            self._inputs.append(torch.from_numpy(array))
        self._count = len(compiled.outputs)

    def run(self, inputs: Tensors) -> Tensors:
        import torch

        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._request.start_async()
        self._request.wait()
        return tuple(torch.from_numpy(self._request.get_output_tensor(i).data.copy()) for i in range(self._count))


def convert(
    module: torch.nn.Module, inputs: Tensors, names: tuple[str, ...], axes: tuple[Axes, ...] | None = None
) -> Any:
    """Convert a module with tensor arguments and results; `axes` are the open dimensions of each input.

    What the frontend of traced modules cannot take goes through ONNX. Raises BackendError if neither can.
    """
    shapes = {
        index: [-1 if axis in opened else size for axis, size in enumerate(value.shape)]
        for index, (value, opened) in enumerate(zip(inputs, axes or ({},) * len(inputs), strict=True))
    }

    def shaped(model: Any) -> Any:
        if len(model.inputs) != len(inputs):
            raise BackendError(f"OpenVINO sees {len(model.inputs)} of {len(inputs)} inputs of {type(module).__name__}")
        model.reshape(shapes)
        return model

    try:
        model = _converted(lambda: shaped(_traced(module, inputs)))
    except BackendError as refused:
        model = _through_onnx(module, inputs, names, axes, shaped, refused)
    for port, name in zip(model.inputs, names, strict=True):
        port.get_node().set_friendly_name(name)
    flatten_group_norms(model)
    return model


def _traced(module: torch.nn.Module, inputs: Tensors) -> Any:
    import torch

    import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    traced = torch.jit.trace(  # type: ignore[no-untyped-call]
        module, inputs, check_trace=False, strict=False
    )
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced)  # the frontend does not keep it alive
    return frontend.convert(frontend.load(decoder))


def _through_onnx(
    module: torch.nn.Module,
    inputs: Tensors,
    names: tuple[str, ...],
    axes: tuple[Axes, ...] | None,
    shaped: Callable[[Any], Any],
    refused: BackendError,
) -> Any:
    if importlib.util.find_spec("onnxscript") is None:
        raise refused
    from diffopt.backends.onnx_export import MODEL as ONNX_MODEL
    from diffopt.backends.onnx_export import convert as convert_to_onnx
    from diffopt.backends.onnx_export import save as save_onnx

    try:
        made = convert_to_onnx(module, inputs, names, axes)
        with tempfile.TemporaryDirectory() as folder:
            save_onnx(made, Path(folder))
            read = import_openvino().Core().read_model(Path(folder) / ONNX_MODEL)
            model = shaped(read.clone())
    except BackendError:
        raise refused from None
    except Exception as error:  # noqa: BLE001 - a reader of another's files raises what it likes; the cause is said
        raise BackendError(f"{refused.message}; nor through ONNX: {_telling(error)}") from None
    return model


def save(model: Any, folder: Path) -> None:
    """Write model.xml and model.bin with the weights as they are."""
    import_openvino().save_model(model, folder / MODEL, compress_to_fp16=False)


def _facts(model: Any) -> dict[str, JSON]:
    constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    int8 = sum(str(node.get_element_type().get_type_name()) == "i8" for node in constants)
    return {"operations": len(model.get_ops()), "int8_constants": int8}


def _converted(work: Callable[[], Any]) -> Any:
    import torch

    try:
        with torch.no_grad(), one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a tracer warns of every Python branch on a size
            return work()
    except BackendError:
        raise
    except Exception as error:
        raise BackendError(f"OpenVINO cannot convert this: {_telling(error)}") from error


def _telling(error: Exception) -> str:
    """Return the line of an error that says what it is about, not where in OpenVINO's source it was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    kept = [
        line
        for line in lines
        if not line.startswith(("Check '", "Exception from src/", "FrontEnd API", "Model wasn't", "Summary"))
    ]
    named = [line for line in kept if "No conversion rule" in line or "aten::" in line or "failed" in line.lower()]
    return (named or kept or lines)[0][:300]
