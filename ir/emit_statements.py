"""From a module to the statements that bring it about on a live pipeline: one list, read by both emitters."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp, StringAttr

from diffopt.ir.description import JSON
from diffopt.ir.dialect import (
    ComponentOp,
    FoldedOp,
    TransformOp,
    components,
    denoiser_of,
    loops,
    scheduler_of,
    stages,
    steps_of,
)
from diffopt.ir.parts import USUAL
from diffopt.ir.step_plan import plan_arguments
from diffopt.ir.transforms import Phase, form
from diffopt.ir.unroll import schedule_constants

RUNTIME = "diffopt.backends.runtime"

FOLDED = ("export", "fuse_pipeline")
"""Transforms that make one engine of the whole call, where they stand at the pipeline."""

PLACEHOLDER = re.compile(r"\{(pipe|engines)\}")


@dataclass(frozen=True)
class Statement:
    """One line of code on a live pipeline.

    Args:
        origin: the pass that asked for it.
        imports: (module, name) pairs the line needs.
        code: the line, with `{pipe}` and `{engines}` where those expressions go; `line` puts them in.
    """

    origin: str
    imports: tuple[tuple[str, str], ...]
    code: str

    def line(self, *, pipe: str, engines: str) -> str:
        """Return the code for a pipeline and an engine folder given as expressions."""
        return self.code.replace("{pipe}", pipe).replace("{engines}", engines)


def statements(module: ModuleOp) -> tuple[Statement, ...]:
    """Return what must run after the pipeline is constructed, in order; empty for a module as lifted."""
    named = components(module)
    found = [*_scheduler_statements(scheduler_of(module)), *_folded_statements(module)]
    plan = _plan_statements(module)
    for phase in Phase:
        # An engine or compiled code is made of what runs: of the weights as quantized, and of the step plan's passes.
        found += [*_schedule_statements(module), *plan] if phase is Phase.PLAN else []
        parts = [component for name, component in named.items() if name != "pipeline"]
        for component in (*parts, named["pipeline"]):
            for transform in component.transforms:
                if form(transform.transform.data).phase is phase:
                    found.append(_transform_statement(transform, component.sym_name.data, module))
    return tuple(found)


def placed_by_hand(module: ModuleOp) -> bool:
    """Tell whether a transform says itself where the parts lie, so that the pipeline is not moved as a whole."""
    return any(not form(t.transform.data).on_device for c in components(module).values() for t in c.transforms)


def needs_size(module: ModuleOp) -> bool:
    """Tell whether a statement names the size of the images: where the whole call is one engine."""
    return any(t.transform.data in FOLDED for t in components(module)["pipeline"].transforms)


def call_arguments(module: ModuleOp) -> dict[str, JSON]:
    """Return the arguments of the call that the module describes, as `diffusers` names them."""
    pipeline = components(module)["pipeline"].values
    names, given = pipeline.get("call"), pipeline.get("arguments")
    if not isinstance(names, dict):
        names = dict(USUAL)
    arguments: dict[str, JSON] = {}
    if "steps" in names:
        declared = scheduler_of(module).values.get("steps")
        arguments[str(names["steps"])] = declared if isinstance(declared, int) else steps_of(module)
    if "guidance" in names and (scale := _scale_of(module, str(names["guidance"]))) is not None:
        arguments[str(names["guidance"])] = scale
    for key in ("height", "width"):
        if key in names and pipeline.get(key) is not None:
            arguments[str(names[key])] = pipeline[key]
    if pipeline.get("negative_prompt"):
        arguments["negative_prompt"] = pipeline["negative_prompt"]
    rest = {key: value for key, value in given.items() if key not in arguments} if isinstance(given, dict) else {}
    return arguments | rest


def _scale_of(module: ModuleOp, name: str) -> float | None:
    """Return the scale that the call is given by that name; `None` leaves the pipeline's default."""
    taken = next((p.scale.value.data for loop in loops(module) for p in loop.predicts if p.scale is not None), None)
    if taken is not None:
        return taken
    guided = any(loop.guide is not None for loop in loops(module))
    # A negative prompt given at run time turns this guidance on, so its scale stays what it is.
    return guidance_of(module) if guided or name != "true_cfg_scale" else None


def guidance_of(module: ModuleOp) -> float:
    """Return the guidance scale of the last stage; 1.0 where nothing is guided."""
    return next((loop.guide.scale.value.data for loop in stages(module)[-1] if loop.guide is not None), 1.0)


def _scheduler_statements(scheduler: ComponentOp) -> list[Statement]:
    overrides, swapped = scheduler.values.get("overrides"), scheduler.values.get("swapped")
    if not isinstance(overrides, dict):
        return []
    if isinstance(swapped, dict):
        overrides = {**swapped, **overrides}
    library, class_name = scheduler.class_name.data.rsplit(".", 1)
    arguments = "".join(f", {key}={literal(value)}" for key, value in sorted(overrides.items()))
    name = scheduler.sym_name.data
    code = f"{{pipe}}.{name} = {class_name}.from_config({{pipe}}.{name}.config{arguments})"
    return [Statement(_origin(scheduler), ((library, class_name),), code)]


def _transform_statement(transform: TransformOp, target: str, module: ModuleOp) -> Statement:
    name, written = transform.transform.data, form(transform.transform.data)
    given = [f"{key}={literal(value)}" for key, value in transform.arguments.items()]
    if written.code:
        return _public(transform, target)
    function = written.function or name
    if name == "export":
        given.append("engines={engines}")
        if target == "pipeline":
            function = "export_pipeline"
        else:
            given += _recorded_call(module)
    if target == "pipeline" and name in FOLDED:
        given += _folded_call(module)
    if name == "export" and (sizes := components(module)["pipeline"].values.get("sizes")):
        given.append(f"sizes={literal(sizes)}")
    first = "" if target == "pipeline" else f', "{target}"'
    code = f"{function}({{pipe}}{first}{''.join(f', {argument}' for argument in given)})"
    return Statement(_origin(transform), ((RUNTIME, function),), code)


def _public(transform: TransformOp, target: str) -> Statement:
    """Return the line of public API that a transform is."""
    written, arguments = form(transform.transform.data), transform.arguments
    code, imports = written.code.replace("{target}", target), list(written.imports)
    for argument, module in written.names:
        name = str(arguments.pop(argument))
        imports.append((module, name))
        code = code.replace(f"{{{argument}}}", name)
    for argument, value in transform.arguments.items():
        if f"{{{argument}}}" in code:
            code = code.replace(f"{{{argument}}}", literal(value))
            del arguments[argument]
    given = ", ".join(f"{key}={literal(value)}" for key, value in arguments.items())
    return Statement(_origin(transform), tuple(imports), code.replace("{arguments}", given))


def _folded_call(module: ModuleOp) -> list[str]:
    """Return what a whole-pipeline engine is made for, as arguments."""
    call = call_arguments(module)
    given = [
        f"steps={call['num_inference_steps']}",
        f"guidance={literal(call['guidance_scale'])}",
        f"height={call['height']}",
        f"width={call['width']}",
    ]
    if "negative_prompt" in call:
        given.append(f"negative_prompt={literal(call['negative_prompt'])}")
    return given + _other_arguments(call)


def _recorded_call(module: ModuleOp) -> list[str]:
    """Return what the call is like that an engine of a component is made for, as arguments."""
    call = call_arguments(module)
    sizes = [f"{name}={call[name]}" for name in ("height", "width") if name in call]
    return sizes + _other_arguments(call)


def _other_arguments(call: dict[str, JSON]) -> list[str]:
    """Return what a call is given beside steps, guidance, size and negative prompt."""
    known = (*USUAL.values(), "height", "width", "negative_prompt")
    rest = {name: value for name, value in call.items() if name not in known}
    return [f"arguments={literal(rest)}"] if rest else []


def _plan_statements(module: ModuleOp) -> list[Statement]:
    """Return the step plan, where steps differ: which are guided, and which run the whole denoiser."""
    given = plan_arguments(module)
    if not given:
        return []
    found = loops(module)
    parts = [*found, *(loop.guide for loop in found), *(predict for loop in found for predict in loop.predicts)]
    origin = ", ".join(dict.fromkeys(filter(None, map(_origin, parts))))
    code = f'follow_step_plan({{pipe}}, component="{denoiser_of(module).sym_name.data}", {", ".join([f"steps={steps_of(module)}", *given])})'
    return [Statement(origin, ((RUNTIME, "follow_step_plan"),), code)]


def _folded_statements(module: ModuleOp) -> list[Statement]:
    """Return what computes the embeddings of texts that are constants."""
    return [
        Statement(
            _origin(op),
            ((RUNTIME, "fold_negative_prompt"),),
            f"fold_negative_prompt({{pipe}}, negative_prompt={literal(op.text.data)})",
        )
        for op in module.walk()
        if isinstance(op, FoldedOp)
    ]


def _schedule_statements(module: ModuleOp) -> list[Statement]:
    """Return the constants of unrolled steps as a statement."""
    given = schedule_constants(module)
    if not given:
        return []
    arguments = ", ".join(f"{key}={literal(value)}" for key, value in given.items())
    code = f'unroll_steps({{pipe}}, "{scheduler_of(module).sym_name.data}", {arguments})'
    return [Statement("unroll-steps", ((RUNTIME, "unroll_steps"),), code)]


def literal(value: JSON) -> str:
    """Write a JSON value as Python, strings in double quotes."""
    if isinstance(value, str):
        # A placeholder inside a string stays text: `line` must not fill it in.
        text = PLACEHOLDER.sub(r"\\x7b\1}", "".join(map(_character, value)))
        return f'"{text}"'
    if isinstance(value, float) and not math.isfinite(value):
        return "float('nan')" if math.isnan(value) else f"{'-' * (value < 0)}1e999"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{literal(k)}: {literal(v)}' for k, v in value.items())}}}"
    return repr(value)


def _character(character: str) -> str:
    if character == '"':
        return '\\"'
    return character if character == "'" else repr(character)[1:-1]


def _origin(op: object) -> str:
    attribute = getattr(op, "attributes", {}).get("origin")
    return attribute.data if isinstance(attribute, StringAttr) else ""
