"""Engines of a source's components, without a search: what `diffopt export` does."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.ir.errors import DiffoptError

if TYPE_CHECKING:
    from diffopt.backends.base import JSON, Axis, EngineKey, Part
    from diffopt.backends.export_folder import Exported


PROMPTS = (
    "a portrait of an old fisherman, soft light",
    "a red bicycle leaning on a white wall",
    "mountains above a lake at dawn, wide view",
    "a bowl of fruit on a wooden table",
)
"""What the calls are recorded of from which static quantization takes its ranges."""


def export_engines(
    source: str,
    out: Path,
    *,
    backend: str = "openvino",
    precision: str = "f32",
    components: Sequence[str] = (),
    ranges: Mapping[str, Axis] | None = None,
    passes: str = "",
    target: str = "cpu",
    settings: Mapping[str, str] | None = None,
    replace: bool = False,
    prepare: bool = False,
    say: Callable[[str], None] = lambda name: None,
) -> list[Exported]:
    """Build an engine of each component below `out`, checked against torch at several sizes.

    Args:
        ranges: what calls may be like, by `batch`, `height`, `width` and `sequence`; see `component_parts.Workload`.
        passes: a trace to apply first; its transforms are part of what is exported.
        prepare: TensorRT's first step alone; `finish_engines` does the second, where the GPU is.
        say: gets the name of each component before it is built.

    Raises:
        DiffoptError: the source cannot be lifted or loaded, or the backend cannot build a component here.
    """
    from diffopt.backends.base import Axis, BackendError, EngineOptions, builder
    from diffopt.backends.component_parts import Workload, component_parts, with_calls
    from diffopt.backends.export_folder import check_place, export_parts
    from diffopt.backends.runtime.attachment import attachment
    from diffopt.backends.runtime.export import multiplies_int8
    from diffopt.backends.tensorrt import PreparingTensorRt

    try:
        check_place(out)
        chosen = PreparingTensorRt() if prepare else builder(backend, EngineOptions(precision), target)
        pipe = _loaded(source, passes, settings or {}, target, out)
        state = attachment(pipe)
        options = EngineOptions(precision, dynamic_int8=multiplies_int8(state, *state.transforms))
        workload = Workload(**{"batch": Axis("batch", 1, 1, 2), **(ranges or {})})
        parts = component_parts(pipe, workload, components)
        if precision == "int8":
            parts = with_calls(pipe, parts, PROMPTS)
        about = {"source": source, "pipeline": state.pipeline_class.__name__, "passes": passes, "device": target}
        return export_parts(
            parts, chosen, options, out, about=about, replace=replace, say=say,
            key_of=lambda part: _key(pipe, part, chosen, options.to_json()),
        )  # fmt: skip
    except BackendError as error:
        raise DiffoptError(error.message, where=source, hint=error.hint) from error


def finish_engines(out: Path) -> list[str]:
    """Build the TensorRT plans of a prepared folder; return the names of the components built.

    Raises:
        DiffoptError: no prepared folder, no TensorRT or GPU here, or no engine fits.
    """
    from diffopt.backends.base import BackendError, EngineOptions, builder
    from diffopt.backends.tensorrt import finish_folder

    try:
        builder("tensorrt", EngineOptions(), "cuda")
        return finish_folder(out)
    except BackendError as error:
        raise DiffoptError(error.message, where=str(out), hint=error.hint) from error


def _loaded(source: str, passes: str, settings: Mapping[str, str], target: str, out: Path) -> Any:
    """Return the pipeline that diffopt's own code for the source loads, in float32; no line of a script is run."""
    import torch

    from diffopt.ir.emit_pipeline import emit_pipeline
    from diffopt.passes.pipeline import Trace, applied
    from diffopt.sources import lift

    trace = Trace.parse(passes)
    if any(each.name == "export" for each in trace):
        raise DiffoptError("export is what this command does", where="--passes", hint="leave the pass export out")
    module = applied(trace, lift(source, settings).module)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.py"
        path.write_text(emit_pipeline(module), encoding="utf-8")
        specification = importlib.util.spec_from_file_location("diffopt_exported", path)
        if specification is None or specification.loader is None:
            raise DiffoptError("the emitted pipeline cannot be loaded", where=str(path))
        emitted = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(emitted)
        try:
            pipe = emitted.load(device=target, engines=out / "inside")
        except (OSError, ValueError) as error:
            raise DiffoptError(f"the pipeline cannot be loaded: {str(error).splitlines()[0]}", where=source) from error
    return pipe.to(torch.float32)


def _key(pipe: Any, part: Part, chosen: Any, options: Mapping[str, Any]) -> EngineKey:
    from diffopt.backends.runtime.attachment import attachment
    from diffopt.backends.runtime.engine_key import engine_key, signature_of

    owner = "vae" if part.name.startswith("vae") else part.name
    opened: list[JSON] = [
        {str(position): [axis.name, axis.least, axis.usual, axis.most] for position, axis in axes.items()}
        for axes in part.axes()
    ]
    return engine_key(
        chosen,
        [getattr(pipe, owner)],
        transforms=attachment(pipe).transforms.get(owner, []),
        inputs=signature_of(part.input_names, part.inputs, part.batched),
        options={**options, "part": part.name, "open": opened},
    )
