"""The components of a module: what a description says of each part and of the pipeline itself."""

from __future__ import annotations

from pathlib import Path

from diffopt.ir.component import ComponentOp
from diffopt.ir.description import JSON, Adapter, ComponentDescription, PipelineDescription, Present
from diffopt.ir.model_index import read_index
from diffopt.ir.pipeline_classes import pipeline_class
from diffopt.ir.roles import Guidance
from diffopt.ir.source_directory import STEPS

USUAL = {"steps": "num_inference_steps", "guidance": "guidance_scale", "height": "height", "width": "width"}
"""The call's arguments for what a description says of it; a pipeline with other names carries them."""


def parts_of(description: PipelineDescription, guidance: Guidance, scheduler: str) -> list[ComponentOp]:
    """Return the components, the pipeline first."""
    call: dict[str, JSON] = {"model": description.model}
    call |= {key: size for key in ("height", "width") if (size := getattr(description, key)) is not None}
    call |= {"batch": description.batch, "dtype": description.dtype, "negative_prompt": description.negative_prompt}
    names = call_names(description.pipeline_class, guidance)
    if names != USUAL:
        call["call"] = {**names}
    if description.arguments:
        call["arguments"] = dict(description.arguments)
    if description.inputs:
        call["inputs"] = [
            {"name": i.name, "kind": i.kind, **({"source": i.source} if i.source else {})} for i in description.inputs
        ]
    if description.adapters:
        call["adapters"] = [_adapter(adapter) for adapter in description.adapters]
    if "seeded_weights" in description.settings:
        call["seeded_weights"] = description.settings["seeded_weights"]
    extra: list[JSON] = [name for name in guidance.extra if _is_on(description, name)]
    if extra:
        call["extra_guidance"] = extra
    names_held = [part.name for part in description.components]
    if without := _without(description, names_held):
        call["without"] = without
    call |= _present([p for p in description.present if p.target not in names_held])
    parts = [ComponentOp("pipeline", description.pipeline_class, call)]
    for part in description.components:
        config: JSON = {k: v for k, v in part.config.items() if v is not None and not k.startswith("_")}
        attributes: dict[str, JSON] = {"config": config} if config else {}
        if part.name == scheduler:
            attributes = {"steps": description.steps, **_prediction(part.class_name, part.config), **attributes}
            attributes |= _swapped(description, part)
        if part.model:
            attributes["model"] = part.model
        attributes |= _present([p for p in description.present if p.target == part.name])
        parts.append(ComponentOp(part.name, part.class_name, attributes))
    return parts


def call_names(class_name: str, guidance: Guidance) -> dict[str, str]:
    """Return the call's arguments for steps, guidance, height and width; what a class does not take is left out."""
    known = pipeline_class(class_name)
    if known is None:
        return dict(USUAL)
    found = {
        "steps": next((name for name in STEPS if name in known.call), ""),
        "guidance": guidance.distilled or guidance.scale,
        "height": "height" if "height" in known.call else "",
        "width": "width" if "width" in known.call else "",
    }
    return {key: name for key, name in found.items() if name}


def _without(description: PipelineDescription, held: list[str]) -> list[JSON]:
    """Return components that would be loaded, or asked for, and are not to be."""
    known, folder = pipeline_class(description.pipeline_class), Path(description.model)
    wanted = [name for name in known.components if name not in known.optional] if known else []
    if (folder / "model_index.json").is_file():
        wanted += [part.name for part in read_index(folder).components]
    # A description of a class alone does not say what the model leaves out.
    empty = not any(part.config for part in description.components)
    return [] if empty else [name for name in dict.fromkeys(wanted) if name not in held]


def _swapped(description: PipelineDescription, part: ComponentDescription) -> dict[str, JSON]:
    """Return what was changed of the scheduler that stands in the saved model, where something was."""
    folder = Path(description.model)
    if not (folder / "model_index.json").is_file():
        return {}
    saved = next((p for p in read_index(folder).components if p.name == part.name), None)
    if saved is None:
        return {}
    other = saved.class_name != part.class_name
    changes: dict[str, JSON] = {
        key: value
        for key, value in part.config.items()
        # A live configuration also holds defaults that older saved ones do not; a script holds what it gives.
        if not key.startswith("_")
        and (saved.config[key] != value if key in saved.config else other or description.source)
    }
    return {"swapped": changes} if other or changes else {}


def _prediction(class_name: str, config: object) -> dict[str, JSON]:
    """Return what the denoiser predicts, where it is not told by the configuration that stands beside it."""
    if "FlowMatch" in class_name or (isinstance(config, dict) and config.get("use_flow_sigmas") is True):
        return {"prediction": "flow"}
    return {}


def _is_on(description: PipelineDescription, name: str) -> bool:
    known = pipeline_class(description.pipeline_class)
    value = description.arguments.get(name, known.call.get(name) if known else None)
    return not (value == 0 or value is None)


def _adapter(adapter: Adapter) -> dict[str, JSON]:
    found: dict[str, JSON] = {"kind": adapter.kind, "model": adapter.model}
    found |= {key: value for key in ("weight_name", "name") if (value := getattr(adapter, key))}
    if adapter.scale is not None:
        found["scale"] = adapter.scale
    if adapter.fused:
        found["fused"] = True
    return found


def _present(found: list[Present]) -> dict[str, JSON]:
    listed: list[JSON] = [{"name": p.name, **({"arguments": dict(p.arguments)} if p.arguments else {})} for p in found]
    return {"present": listed} if listed else {}
