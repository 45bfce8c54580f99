"""Engines of TensorRT 11, for NVIDIA GPUs: a typed ONNX graph, checked here, and the plan made of it where the GPU is."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.backends.base import JSON, BackendError, Capabilities, EngineOptions, Part, Program, Run, Tensors
from diffopt.backends.onnx_export import MODEL, convert, save

if TYPE_CHECKING:
    from diffopt.backends.tensorrt_api import Range

PLAN = "model.plan"
TYPED_OPSET = 22
"""The first version of the operators in which convolutions may be in bfloat16."""
REQUEST = "request.json"
TOLERANCE = 0.1
"""The greatest relative L2 error of the lowered graph in ONNX Runtime that is let pass."""


class TensorRtBuilder:
    """Writes the precision into the ONNX graph, checks it, and hands it with its profiles to TensorRT."""

    name = "tensorrt"
    packages: tuple[str, ...] = ("onnx", "onnxscript")
    capabilities = Capabilities(precisions=("f32", "bf16", "f16"), devices=("cuda",))

    def available(self) -> str | None:
        from diffopt.backends.tensorrt_api import unusable

        return unusable()

    def build(self, part: Part, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        facts = self.prepare(part, folder, options)
        return {**facts, **self.finish(folder)}

    def prepare(self, part: Part, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        """Write the typed graph and what to build of it; needs no GPU and no TensorRT.

        Raises BackendError if the graph cannot be exported, or is off from torch.
        """
        from diffopt.backends.numeric_check import compare
        from diffopt.backends.onnxruntime import OnnxRuntimeEngine

        started = time.perf_counter()
        model = convert(part.module, part.inputs, part.input_names, part.axes(), opset=TYPED_OPSET)
        counts = _write(model, folder, options.precision)
        (folder / REQUEST).write_text(json.dumps({"profiles": [profile(part)], "refit": True}, indent=1))
        facts: dict[str, JSON] = {"conversion_s": round(time.perf_counter() - started, 3), "operations": counts}
        with tempfile.TemporaryDirectory() as scratch:
            twin = folder
            if options.precision == "bf16":
                # ONNX Runtime has no bf16 convolutions on the CPU; the graph in f16 has the same casts in the same places
                twin, facts["checked_as"] = Path(scratch), "f16"
                _write(model, twin, "f16")
            checks = compare(OnnxRuntimeEngine(twin / MODEL).run, part)
        if float(str(checks["relative_l2_error"])) > TOLERANCE:
            raise BackendError(f"{part.name} is off by {checks['relative_l2_error']:.1%} in {options.precision}")
        return {**facts, **checks}

    def finish(self, folder: Path) -> dict[str, JSON]:
        """Build the plan of a prepared folder, on the machine that is to run it."""
        from diffopt.backends.tensorrt_api import PlanRequest, build_plan

        wanted = json.loads((folder / REQUEST).read_text())
        profiles = [{name: _range(shapes) for name, shapes in profile.items()} for profile in wanted["profiles"]]
        started = time.perf_counter()
        build_plan(PlanRequest(folder / MODEL, profiles, refit=wanted["refit"]), folder / PLAN)
        return {"plan_s": round(time.perf_counter() - started, 3), **machine()}

    def build_program(self, program: Program, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        from diffopt.backends.onnx_program import compose

        started = time.perf_counter()
        model, facts = compose(program, opset=TYPED_OPSET)
        counts = _write(model, folder, options.precision)
        (folder / REQUEST).write_text(json.dumps({"profiles": [], "refit": False}, indent=1))
        return {
            **facts,
            "conversion_s": round(time.perf_counter() - started, 3),
            "types": counts,
            **self.finish(folder),
        }

    def load(self, folder: Path, options: EngineOptions) -> Run:
        from diffopt.backends.tensorrt_api import LoadedPlan

        _refuse_other_machine(folder)
        return LoadedPlan(folder / PLAN).run


class PreparingTensorRt(TensorRtBuilder):
    """Does what needs no GPU; what it loads is the typed graph in ONNX Runtime, to look at."""

    def available(self) -> str | None:
        return None

    def build(self, part: Part, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        return {**self.prepare(part, folder, options), "prepared": True}

    def load(self, folder: Path, options: EngineOptions) -> Run:
        from diffopt.backends.onnxruntime import OnnxRuntimeEngine

        if options.precision == "bf16":
            return _shapes_only(folder / MODEL)
        return OnnxRuntimeEngine(folder / MODEL).run


def finish_folder(out: Path) -> list[str]:
    """Build the plan of every prepared engine below a folder, and write its hash and facts into the engine's manifest.

    Raises BackendError if there is none.
    """
    from diffopt.backends.engine_store import add_facts, check_engine

    prepared = sorted(path.parent for path in out.glob(f"*/{REQUEST}"))
    if not prepared:
        raise BackendError(f"{out} holds no prepared engine", "diffopt export --backend tensorrt --prepare makes them")
    for folder in prepared:
        damage = check_engine(folder)
        if damage is not None:
            raise BackendError(f"{folder}: {damage}", "prepare it again")
        add_facts(folder, TensorRtBuilder().finish(folder))
    return [folder.name for folder in prepared]


def _shapes_only(path: Path) -> Run:
    """Return what gives out zeros of the shapes that the graph says, where nothing here can run it."""

    def run(inputs: Tensors) -> Tensors:
        import onnx
        import torch

        model = onnx.load(path, load_external_data=False)
        sizes: dict[str, int] = {}
        for value, given in zip(model.graph.input, inputs, strict=True):
            named = zip(value.type.tensor_type.shape.dim, given.shape, strict=True)
            sizes |= {dim.dim_param: size for dim, size in named if dim.dim_param}
        return tuple(
            torch.zeros([sizes.get(dim.dim_param, dim.dim_value) for dim in value.type.tensor_type.shape.dim])
            for value in model.graph.output
        )

    return run


def profile(part: Part) -> dict[str, list[list[int]]]:
    """Return the least, the usual and the greatest shape of each input that has an open dimension."""
    found = {}
    for name, value, axes in zip(part.input_names, part.inputs, part.axes(), strict=True):
        if axes:
            found[name] = [
                [getattr(axes[p], which) if p in axes else size for p, size in enumerate(value.shape)]
                for which in ("least", "usual", "most")
            ]
    return found


def _write(model: Any, folder: Path, precision: str) -> dict[str, int]:
    from diffopt.backends.onnx_autocast import autocast

    counts: dict[str, int] = {}
    if precision != "f32":
        model, counts = autocast(model, precision)
    save(model, folder)
    return counts


def _range(shapes: list[list[int]]) -> Range:
    least, usual, most = (tuple(shape) for shape in shapes)
    return least, usual, most


def machine() -> dict[str, JSON]:
    """Return what a plan is bound to: TensorRT's version, and the GPU and its compute capability."""
    import torch

    from diffopt.backends.tensorrt_api import version

    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    return {"tensorrt": version(), "compute_capability": capability, "gpu": torch.cuda.get_device_name()}


def _refuse_other_machine(folder: Path) -> None:
    """Raise BackendError if the plan was built by another version, or for another kind of GPU."""
    from diffopt.backends.engine_store import read_manifest

    if not (folder / PLAN).exists():
        raise BackendError(f"{folder.name} is prepared, but not built", "diffopt export --finish builds it on the GPU")
    facts, here = read_manifest(folder)["facts"], machine()
    for name in ("tensorrt", "compute_capability"):
        if facts.get(name) != here[name]:
            raise BackendError(
                f"the engine was built with {name.replace('_', ' ')} {facts.get(name)}, here is {here[name]}",
                "build it again here",
            )
