"""Engines of Torch-TensorRT: TensorRT's plans, made of an exported program without ONNX between."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.backends.aotinductor import LOWER, export_program, lowered
from diffopt.backends.base import JSON, BackendError, Capabilities, EngineOptions, Part, Program, Run
from diffopt.backends.tensorrt import PLAN, TensorRtBuilder, machine, profile

if TYPE_CHECKING:
    import torch

PACKAGE = "torch_tensorrt"


class TorchTensorRtBuilder:
    """Exports with `torch.export` and has Torch-TensorRT write a plan, which TensorRT's own runtime then loads.

    Its own way to save a compiled module holds pickles; a plan holds none, and needs no Torch-TensorRT to run.
    Written against 2.14 and not run: no machine with TensorRT's libraries could be had.
    """

    name = "torch-tensorrt"
    packages: tuple[str, ...] = ("torch",)
    capabilities = Capabilities(precisions=("f32", "bf16", "f16"), devices=("cuda",))

    def available(self) -> str | None:
        if importlib.util.find_spec(PACKAGE) is None:
            return (
                "the package torch-tensorrt is not installed; pip install torch-tensorrt of torch's own version, on a machine "
                "with an NVIDIA GPU, or take backend tensorrt"
            )
        return TensorRtBuilder().available()

    def build(self, part: Part, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        from diffopt.backends.numeric_check import compare

        started = time.perf_counter()
        module = lowered(part.module, LOWER[options.precision]) if options.precision in LOWER else part.module
        (folder / PLAN).write_bytes(plan_of(export_program(module, part), part))
        facts: dict[str, JSON] = {"conversion_s": round(time.perf_counter() - started, 3), **machine()}
        from diffopt.backends.tensorrt_api import LoadedPlan

        return {**facts, **compare(LoadedPlan(folder / PLAN).run, part)}

    def build_program(self, program: Program, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        raise BackendError(
            "torch-tensorrt makes engines of components alone", "take backend tensorrt for a whole pipeline"
        )

    def load(self, folder: Path, options: EngineOptions) -> Run:
        return TensorRtBuilder().load(folder, options)


def plan_of(program: torch.export.ExportedProgram, part: Part) -> bytes:
    """Return TensorRT's plan of an exported part.

    Raises BackendError with the first line of what Torch-TensorRT has against it.
    """
    compiler: Any = importlib.import_module(f"{PACKAGE}.dynamo")
    try:
        made: bytes = compiler.convert_exported_program_to_serialized_trt_engine(
            program,
            arg_inputs=inputs_of(part),
            require_full_compilation=True,
            disable_tf32=True,
            immutable_weights=True,
        )
    except Exception as error:  # a compiler of another's raises what it likes; the cause is said
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BackendError(f"torch-tensorrt cannot compile {part.name}: {lines[0]}") from error
    return bytes(made)


def inputs_of(part: Part) -> Sequence[Any]:
    """Return a part's inputs as Torch-TensorRT names them, with the ranges of what is open."""
    package: Any = importlib.import_module(PACKAGE)
    ranges = profile(part)
    found = []
    for name, value in zip(part.input_names, part.inputs, strict=True):
        given = (
            dict(zip(("min_shape", "opt_shape", "max_shape"), map(tuple, ranges[name]), strict=True))
            if name in ranges
            else {"shape": tuple(value.shape)}
        )
        found.append(package.Input(dtype=value.dtype, name=name, **given))
    return found
