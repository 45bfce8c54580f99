"""Optimizations that a script applies to its pipeline already."""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from diffopt.ir.description import JSON, Present
from diffopt.ir.script_adapters import CHANGES, LOADERS
from diffopt.ir.script_choice import Choice
from diffopt.ir.script_components import Change, behind, changes
from diffopt.ir.script_conditions import is_dead, open_condition
from diffopt.ir.script_inputs import as_json
from diffopt.ir.script_kinds import Known
from diffopt.ir.script_pipelines import FLUENT, Pipelines

METHODS = re.compile(r"^(enable|disable|fuse|unfuse|set|compile|apply|upcast)(_|$)")
"""Methods of a pipeline or a component that change how it runs."""

PLAIN = ("set_progress_bar_config", "set_timesteps", "enable_lora", "apply_chat_template", "set_seed")
OUTSIDE = re.compile(
    r"^(builtins|typing|logging|pathlib|os|json|warnings|inspect|gc|copy|functools|gradio|fastapi)(\.|$)"
)
ARGUMENTS = ("quantization_config", "device_map", "custom_pipeline")
MEMORY = ("memory_format",)


def present(pipelines: Pipelines, choice: Choice) -> tuple[Present, ...]:
    """Return what the script does to the pipeline to make it faster or smaller, in the order of the source."""
    parts = [item for change in changes(pipelines, choice) for item in _of_part(pipelines, change)]
    found = [item for call in pipelines.script.all(cst.Call) for item in _of_call(pipelines, choice, call)]
    return (*parts, *found)


def _of_part(pipelines: Pipelines, change: Change) -> Iterator[Present]:
    """Yield what is done to a component where it is made."""
    node: cst.BaseExpression | None = change.value
    for _ in range(12):
        if node is None:
            return
        for arg in node.args if isinstance(node, cst.Call) else ():
            if arg.keyword is not None and arg.keyword.value == "quantization_config":
                assert isinstance(node, cst.Call)
                yield _made(pipelines, "quantization_config", change.name, [arg], node)
        node = behind(pipelines, node)


def _of_call(pipelines: Pipelines, choice: Choice, call: cst.Call) -> Iterator[Present]:
    values = pipelines.values
    if any(call is site.call for site in choice.sites):
        for arg in call.args:
            if arg.keyword is not None and arg.keyword.value in ARGUMENTS:
                yield _made(pipelines, arg.keyword.value, "pipeline", [arg], call)
        return
    if call in pipelines.sites or call in pipelines.calls or is_dead(values, call):
        return
    method = call.func.attr.value if isinstance(call.func, cst.Attribute) else ""
    if isinstance(call.func, cst.Attribute) and (target := _target(pipelines, choice, call.func.value)):
        if method == "to":
            kept = [arg for arg in call.args if arg.keyword is not None and arg.keyword.value in MEMORY]
            if kept:
                yield _made(pipelines, "channels_last", target, kept, call)
        elif METHODS.match(method) and method not in (*PLAIN, *LOADERS, *CHANGES):
            yield _made(pipelines, method, target, call.args, call)
        return
    name = values.symbol(call.func)
    if not name or OUTSIDE.match(name) or method in FLUENT or name.startswith("diffusers.utils."):
        return
    for arg in call.args:
        target = _target(pipelines, choice, arg.value)
        if target:
            yield _made(pipelines, name, target, [a for a in call.args if a is not arg], call)
            return


def _target(pipelines: Pipelines, choice: Choice, node: cst.BaseExpression) -> str:
    """Return what an expression is of the chosen pipeline: `pipeline`, the name of a component, or nothing."""
    if pipelines.of(node) & set(choice.sites):
        return "pipeline"
    names: list[str] = []
    while isinstance(node, cst.Attribute):
        names.append(node.attr.value)
        node = node.value
        if pipelines.of(node) & set(choice.sites):
            deep = len(names) > 1 and names[0] not in ("decode", "encode", "forward", "decoder", "encoder")
            return "" if deep or names[-1] in ("config", "components", "device", "dtype") else names[-1]
    return ""


def _made(pipelines: Pipelines, name: str, target: str, args: Iterator[cst.Arg] | object, call: cst.Call) -> Present:
    values = pipelines.values
    given: dict[str, JSON] = {}
    for index, arg in enumerate(args if isinstance(args, list | tuple) else ()):
        key = arg.keyword.value if arg.keyword is not None else f"argument_{index + 1}"
        value = values.of(arg.value)
        try:
            given[key] = as_json(value.value) if isinstance(value, Known) else values.short(arg.value)
        except TypeError:
            given[key] = values.short(arg.value)
    condition = open_condition(values, call, pipelines.sites)
    if condition:
        given["when"] = condition
    return Present(name, target, given, pipelines.script.span(call))
