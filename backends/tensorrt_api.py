"""Every call into TensorRT's library stands here, and nothing else does.

Written against the Python API of 11.4; `tests/backends/test_tensorrt_api.py` checks each call's name, arguments and types
against the signatures of the real bindings. None of it was run: no machine with the library could be had.
Networks are strongly typed, as 11.x knows no others: what computes in which precision is said by the ONNX graph.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffopt.backends.base import BackendError, Tensors

if TYPE_CHECKING:
    import tensorrt
    import torch

Shape = tuple[int, ...]
Range = tuple[Shape, Shape, Shape]
"""The least, the usual and the greatest shape of an input."""


@dataclass(frozen=True)
class PlanRequest:
    """What to build.

    Args:
        profiles: shapes of each input by name; the engine picks the first profile that takes a call's.
        refit: keep the weights replaceable, for adapters.
        weight_streaming: let weights stay in host memory; how many is said at load.
        timing_cache: a file of kernel timings, read before and written after; None measures all anew.
        workspace: bytes a kernel may use while it runs; None is all there is.
        optimization_level: 0 builds fast, 5 searches longest.
    """

    onnx: Path
    profiles: Sequence[Mapping[str, Range]]
    refit: bool = False
    weight_streaming: bool = False
    timing_cache: Path | None = None
    workspace: int | None = None
    optimization_level: int = 3


def unusable() -> str | None:
    """Return why TensorRT cannot be used here, or None."""
    if importlib.util.find_spec("tensorrt") is None:
        return "the package tensorrt is not installed; pip install 'diffopt[cuda]' on a machine with an NVIDIA GPU"
    try:
        importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        return f"tensorrt cannot be loaded: {str(error).splitlines()[0]}"
    import torch

    return None if torch.cuda.is_available() else "there is no CUDA device"


def version() -> str:
    """Return the version of the installed library."""
    import tensorrt

    return str(tensorrt.__version__)


def build_plan(request: PlanRequest, plan: Path) -> None:
    """Build an engine file from an ONNX file.

    Raises BackendError with the parser's words, or if no engine fits the device.
    """
    import tensorrt

    logger = tensorrt.Logger(min_severity=tensorrt.ILogger.Severity.ERROR)
    builder = tensorrt.Builder(logger=logger)
    network = builder.create_network(flags=1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network=network, logger=logger)
    if not parser.parse_from_file(model=str(request.onnx)):
        said = "; ".join(parser.get_error(index=index).desc() for index in range(parser.num_errors))
        raise BackendError(f"TensorRT cannot read {request.onnx.name}: {said}")
    config = builder.create_builder_config()
    config.builder_optimization_level = request.optimization_level
    if request.workspace is not None:
        config.set_memory_pool_limit(pool=tensorrt.MemoryPoolType.WORKSPACE, pool_size=request.workspace)
    if request.refit:
        config.set_flag(flag=tensorrt.BuilderFlag.REFIT)
    if request.weight_streaming:
        config.set_flag(flag=tensorrt.BuilderFlag.WEIGHT_STREAMING)
    for shapes in request.profiles:
        profile = builder.create_optimization_profile()
        for name, (least, usual, most) in shapes.items():
            profile.set_shape(input=name, min=tensorrt.Dims(least), opt=tensorrt.Dims(usual), max=tensorrt.Dims(most))
        config.add_optimization_profile(profile=profile)
    cache = _timings(config, request.timing_cache)
    made = builder.build_serialized_network(network=network, config=config)
    if made is None:
        raise BackendError("TensorRT found no engine for this device", "a smaller envelope, or more memory, may do")
    plan.write_bytes(memoryview(made))
    if request.timing_cache is not None:
        draft = request.timing_cache.with_suffix(".draft")
        draft.write_bytes(memoryview(cache.serialize()))
        draft.replace(request.timing_cache)


def _timings(config: tensorrt.IBuilderConfig, path: Path | None) -> tensorrt.ITimingCache:
    known = path.read_bytes() if path is not None and path.exists() else b""
    cache = config.create_timing_cache(serialized_timing_cache=known)
    config.set_timing_cache(cache=cache, ignore_mismatch=False)
    return cache


class LoadedPlan:
    """An engine in memory, with buffers that stay and one CUDA graph for each set of input shapes.

    Not for two threads at once. `run` returns tensors of the caller's own.
    weight_budget: bytes of weights kept on the device, where the engine streams them; None keeps all.
    """

    def __init__(self, plan: Path, *, weight_budget: int | None = None, graphs: bool = True) -> None:
        import tensorrt
        import torch

        self._logger = tensorrt.Logger(min_severity=tensorrt.ILogger.Severity.ERROR)
        self._runtime = tensorrt.Runtime(logger=self._logger)
        engine = self._runtime.deserialize_cuda_engine(serialized_engine=plan.read_bytes())
        if engine is None:
            raise BackendError(f"TensorRT cannot load {plan.name}", "it was built by another version: build it again")
        self._engine = engine
        if weight_budget is not None:
            engine.weight_streaming_budget_v2 = min(weight_budget, engine.streamable_weights_size)
        self._context = engine.create_execution_context()
        names = [engine.get_tensor_name(index=index) for index in range(engine.num_io_tensors)]
        is_input = tensorrt.TensorIOMode.INPUT
        self.inputs = [name for name in names if engine.get_tensor_mode(name=name) == is_input]
        self.outputs = [name for name in names if engine.get_tensor_mode(name=name) != is_input]
        self._types = {name: _torch_type(engine.get_tensor_dtype(name=name)) for name in names}
        self._graphs = graphs
        self._stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._ready: dict[tuple[Shape, ...], _Prepared] = {}
        self._profile = 0

    def run(self, inputs: Tensors) -> Tensors:
        """Run the engine on tensors of the device, in the engine's order.

        Raises BackendError if no profile takes these shapes.
        """
        import torch

        shapes = tuple(tuple(value.shape) for value in inputs)
        prepared = self._ready.get(shapes) or self._prepare(shapes)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for own, given in zip(prepared.inputs, inputs, strict=True):
                own.copy_(given)
            if prepared.graph is not None:
                prepared.graph.replay()
            else:
                self._enqueue(prepared)
            results = tuple(value.clone() for value in prepared.outputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return results

    def _prepare(self, shapes: tuple[Shape, ...]) -> _Prepared:
        import torch

        self._choose_profile(shapes)
        for name, shape in zip(self.inputs, shapes, strict=True):
            self._context.set_input_shape(name=name, shape=shape)
        sizes = [tuple(self._context.get_tensor_shape(name=name)) for name in self.outputs]
        prepared = _Prepared(
            [torch.empty(s, dtype=self._types[n], device="cuda") for n, s in zip(self.inputs, shapes, strict=True)],
            [torch.empty(s, dtype=self._types[n], device="cuda") for n, s in zip(self.outputs, sizes, strict=True)],
            shapes,
        )
        with torch.cuda.stream(self._stream):
            self._enqueue(prepared)  # a graph may be captured only after a first run
            if self._graphs:
                self._stream.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=self._stream):
                    self._enqueue(prepared)
                prepared.graph = graph
        self._ready[shapes] = prepared
        return prepared

    def _choose_profile(self, shapes: tuple[Shape, ...]) -> None:
        for index in range(self._engine.num_optimization_profiles):
            if all(self._takes(name, shape, index) for name, shape in zip(self.inputs, shapes, strict=True)):
                if index != self._profile:
                    self._context.set_optimization_profile_async(
                        profile_index=index, stream_handle=self._stream.cuda_stream
                    )
                    self._profile = index
                return
        raise BackendError(f"the engine was not built for inputs of sizes {list(shapes)}")

    def _takes(self, name: str, shape: Shape, index: int) -> bool:
        least, _, most = self._engine.get_tensor_profile_shape(name=name, profile_index=index)
        return len(shape) == len(tuple(least)) and all(
            low <= size <= high for low, size, high in zip(tuple(least), shape, tuple(most), strict=True)
        )

    def _enqueue(self, prepared: _Prepared) -> None:
        for name, shape, value in zip(self.inputs, prepared.shapes, prepared.inputs, strict=True):
            self._context.set_input_shape(name=name, shape=shape)
            self._context.set_tensor_address(name=name, memory=value.data_ptr())
        for name, value in zip(self.outputs, prepared.outputs, strict=True):
            self._context.set_tensor_address(name=name, memory=value.data_ptr())
        if not self._context.execute_async_v3(stream_handle=self._stream.cuda_stream):
            raise BackendError("TensorRT could not run the engine")

    def refit(self, onnx: Path) -> None:
        """Replace the weights by those of another ONNX file of the same graph, such as one with an adapter fused in.

        Raises BackendError if the engine was not built for it, or the files do not fit together.
        """
        import tensorrt

        if not self._engine.refittable:
            raise BackendError("the engine's weights are fixed", "build it with refit")
        refitter = tensorrt.Refitter(engine=self._engine, logger=self._logger)
        parser = tensorrt.OnnxParserRefitter(refitter=refitter, logger=self._logger)
        if not parser.refit_from_file(model=str(onnx)) or not refitter.refit_cuda_engine():
            raise BackendError(f"the weights of {onnx.name} do not fit the engine")


@dataclass
class _Prepared:
    """Buffers for one set of shapes, and the graph that works on them."""

    inputs: list[torch.Tensor]
    outputs: list[torch.Tensor]
    shapes: tuple[Shape, ...]
    graph: torch.cuda.CUDAGraph | None = None


def _torch_type(kind: tensorrt.DataType) -> torch.dtype:
    import tensorrt
    import torch

    known = {
        tensorrt.DataType.FLOAT: torch.float32,
        tensorrt.DataType.HALF: torch.float16,
        tensorrt.DataType.BF16: torch.bfloat16,
        tensorrt.DataType.INT32: torch.int32,
        tensorrt.DataType.INT64: torch.int64,
        tensorrt.DataType.BOOL: torch.bool,
    }
    return known[kind]
