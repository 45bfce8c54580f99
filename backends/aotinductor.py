"""Engines of AOTInductor: torch's own compiler, run beforehand; what it leaves loads without a compiler."""

from __future__ import annotations

import contextlib
import copy
import logging
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.backends.base import JSON, Axis, BackendError, Capabilities, EngineOptions, Part, Program, Run, Tensors

if TYPE_CHECKING:
    import torch

MODEL = "model.pt2"
LOWER = {"bf16": "bfloat16", "f16": "float16"}


class AotInductorBuilder:
    """Exports with `torch.export` and compiles with Inductor, weights frozen in."""

    name = "aotinductor"
    packages: tuple[str, ...] = ("torch",)
    capabilities = Capabilities(precisions=("f32", "bf16", "f16"), devices=("cpu", "cuda"))

    def available(self) -> str | None:
        # only building needs a compiler; an engine that is there already loads without
        return None

    def build(self, part: Part, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        from diffopt.backends.numeric_check import compare

        started = time.perf_counter()
        _compile(part, folder, options)
        seconds = time.perf_counter() - started
        checks = compare(self.load(folder, options), part)
        return {"conversion_s": round(seconds, 3), **checks}

    def build_program(self, program: Program, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        from diffopt.backends.call_list import write_calls

        started = time.perf_counter()
        calls = write_calls(program, folder)
        for name, part in program.parts.items():
            (folder / name).mkdir()
            _compile(part, folder / name, options)
        return {"conversion_s": round(time.perf_counter() - started, 3), "steps": calls, "parts": len(program.parts)}

    def load(self, folder: Path, options: EngineOptions) -> Run:
        from diffopt.backends.call_list import LIST, load_calls

        if (folder / LIST).exists():
            return load_calls(folder, {path.parent.name: _load(path) for path in sorted(folder.glob(f"*/{MODEL}"))})
        return _load(folder / MODEL)


def _load(path: Path) -> Run:
    """Load a package by torch's C++ loader alone: Inductor itself is not imported."""
    import torch

    try:
        loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
    except RuntimeError as error:
        raise BackendError(f"{path.name} cannot be loaded: {str(error).splitlines()[0]}", "build it again") from error

    def run(inputs: Tensors) -> Tensors:
        with torch.no_grad():
            return tuple(loader.boxed_run([value.contiguous() for value in inputs]))

    return run


def _compile(part: Part, folder: Path, options: EngineOptions) -> None:
    """Write the package of one part.

    Raises BackendError if torch cannot export or compile it, or finds no C++ compiler.
    """
    import torch

    if part.inputs[0].device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        raise BackendError("aotinductor finds no C++ compiler", "install g++, which only building needs")
    module = lowered(part.module, LOWER[options.precision]) if options.precision in LOWER else part.module
    with torch.no_grad(), _quiet():
        try:
            exported = export_program(module, part)
            torch._inductor.aoti_compile_and_package(
                exported, package_path=str(folder / MODEL), inductor_configs={"freezing": True}
            )
        except BackendError:
            raise
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise BackendError(f"aotinductor cannot compile {part.name}: {lines[0]}") from error


def export_program(module: torch.nn.Module, part: Part) -> torch.export.ExportedProgram:
    """Export a part's module with its open dimensions; a dimension of size 1 would be taken for a constant."""
    import torch

    from diffopt.backends.numeric_check import resized

    examples = resized(part, {axis.name: max(2, axis.usual) for axes in part.axes() for axis in axes.values()})
    made: dict[str, Any] = {}
    shapes = tuple(
        {position: made.setdefault(axis.name, _dimension(axis)) for position, axis in axes.items()}
        for axes in part.axes()
    )
    return torch.export.export(
        module, examples, dynamic_shapes=(shapes,) if _variadic(module) else shapes, strict=False
    )


def _dimension(axis: Axis) -> Any:
    """Return an open dimension; only a batch is free of conditions that a network puts on its sizes."""
    import torch

    if axis.name == "batch":
        return torch.export.Dim(axis.name, max=max(2, axis.most))
    return torch.export.Dim.AUTO(min=max(2, axis.least), max=axis.most)


def _variadic(module: torch.nn.Module) -> bool:
    import inspect

    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    return inspect.Parameter.VAR_POSITIONAL in kinds


def lowered(module: torch.nn.Module, precision: str) -> torch.nn.Module:
    """Return a copy of a module that computes in fewer bits, and takes and returns what it did before."""
    import torch

    lower: torch.dtype = getattr(torch, precision)

    class Lowered(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = copy.deepcopy(module).to(lower)

        def forward(self, *inputs: torch.Tensor) -> Tensors:
            found = self.inside(*(value.to(lower) if value.is_floating_point() else value for value in inputs))
            return tuple(value.float() if value.is_floating_point() else value for value in found)

    return Lowered().eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the compiler's warnings back: what it cannot do is an error, and that is said."""
    names = ("torch._inductor", "torch._export", "torch._dynamo", "torch.export")
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
