"""Which model a script's pipeline is made of, and which class it becomes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath

import libcst as cst

from diffopt.ir.pipeline_classes import auto_pipelines, pipeline_class
from diffopt.ir.pipeline_sources import pipelines_root
from diffopt.ir.script_arguments import argument
from diffopt.ir.script_kinds import Known, Missing, Value
from diffopt.ir.script_names import bindings
from diffopt.ir.script_pipelines import Pipelines, Site

GENERIC = ("DiffusionPipeline", "ModularPipeline")
"""Classes that build whatever class the model's index names."""

LOADED = re.compile(
    rb"(\w+Pipeline\w*)\.from_pretrained\(\s*(?:\.\.\.\s*)?(?:\w+ ?= ?)?([\"'][\w./-]+[\"']|\w+)\s*[,)]"
)
NAMED = re.compile(rb"^[ >]*(\w+) = [\"']([\w.-]+/[\w.-]+)[\"']", re.MULTILINE)
DEFINED = re.compile(rb"^class (\w+Pipeline)\(", re.MULTILINE)
FIRST = ("pretrained_model_name_or_path", "pretrained_model_link_or_path", "pretrained_model_or_path", "repo_id")


@dataclass(frozen=True)
class Model:
    """Where a pipeline's weights come from.

    Args:
        value: directory, hub id or file; what is not known is `Missing`.
        source: the site it takes its components from, for `from_pipe`.
    """

    value: Value
    source: Site | None = None


def model_of(pipelines: Pipelines, site: Site, depth: int = 0) -> Model:
    """Return the model a site builds its pipeline from."""
    values, call = pipelines.values, site.call
    source = source_of(pipelines, site)
    if source is not None and depth < 4:
        return Model(model_of(pipelines, source, depth + 1).value, source)
    if site.loader == "from_pipe":
        return Model(Missing("the pipeline it is made from is not built in this file", call))
    if not site.loader:
        return Model(_model_of_parts(pipelines, site))
    first = next((arg for arg in call.args if arg.keyword is None), None)
    if first is not None:
        return Model(_text(pipelines, values.runtime(first) if first.star else values.of(first.value)))
    given = next((g for name in FIRST if (g := argument(values, call, name)) is not None), None)
    if given is None or isinstance(given, Missing):
        return Model(given or Missing(f"`{site.loader}` is given no model", call))
    return Model(_text(pipelines, values.of(given.value)))


def source_of(pipelines: Pipelines, site: Site) -> Site | None:
    """Return where the pipeline is built that another takes its parts from: `X.from_pipe(p)`, `X(**p.components)`."""
    for arg in site.call.args:
        node: cst.BaseExpression | None = arg.value if site.loader == "from_pipe" and arg.keyword is None else None
        if arg.star == "**" and isinstance(arg.value, cst.Attribute) and arg.value.attr.value == "components":
            node = arg.value.value
        found = sorted(pipelines.of(node), key=lambda s: pipelines.script.start(s.call)) if node is not None else []
        if found and found[0] is not site:
            return found[0]
    return None


def _text(pipelines: Pipelines, value: Value) -> Value:
    if isinstance(value, Known) and not isinstance(value.value, str | PurePath):
        return Missing(f"`{pipelines.values.short(value.origin)}` is no directory and no hub id", value.origin)
    return value


def _model_of_parts(pipelines: Pipelines, site: Site) -> Value:
    """Return the model that the components given to a constructor come from, the denoiser's before the others'."""
    found: dict[str, Value] = {}
    for arg in site.call.args:
        if arg.keyword is not None:
            made = _origin(pipelines, arg.value)
            if isinstance(made, Known):
                found[arg.keyword.value] = made
    for name in ("unet", "transformer", "prior", "vae", "text_encoder", *found):
        if name in found:
            return found[name]
    return Known("", site.call)


def _origin(pipelines: Pipelines, node: cst.BaseExpression, depth: int = 0) -> Value | None:
    """Return the model in `X.from_pretrained(model, ...)` behind an expression."""
    if isinstance(node, cst.Name) and depth < 6:
        made = bindings(pipelines.script, node)
        inner = made[0].node if len(made) == 1 else None
        return _origin(pipelines, inner, depth + 1) if isinstance(inner, cst.BaseExpression) else None
    if not isinstance(node, cst.Call) or not isinstance(node.func, cst.Attribute) or depth > 6:
        return None
    if node.func.attr.value == "from_pretrained" and node.args and node.args[0].keyword is None:
        return _text(pipelines, pipelines.values.of(node.args[0].value))
    return _origin(pipelines, node.func.value, depth + 1)


def is_generic(class_name: str) -> bool:
    """Say whether a class only stands for the one that the model's index names."""
    name = class_name.rpartition(".")[2]
    return name in GENERIC or name.startswith("AutoPipelineFor")


def concrete(task: str, model_class: str, call: cst.Call, pipelines: Pipelines) -> str:
    """Return the class that a generic class builds for a model of a class; empty where diffusers has none."""
    table = auto_pipelines().get(task.rpartition(".")[2])
    if table is None:
        return model_class
    wanted = model_class
    for flag, infix in (("enable_pag", "PAG"), ("controlnet", "ControlNet")):
        given = argument(pipelines.values, call, flag)
        if given is None:
            continue
        value = given if isinstance(given, Missing) else pipelines.values.of(given.value)
        on = value.value not in (None, False) if isinstance(value, Known) else flag == "controlnet"
        if on:
            wanted = _with(table, table.get(wanted, wanted), infix)
    return table.get(wanted, "")


def _with(table: Mapping[str, str], name: str, infix: str) -> str:
    """Return the class of a table that is another one with a feature, `StableDiffusionXL` + `PAG`."""
    have = {"ControlNet", "PAG"} & {part for part in ("ControlNet", "PAG") if part in name} | {infix}
    plain = name.replace("ControlNet", "").replace("PAG", "")
    for known in table.values():
        parts = {part for part in ("ControlNet", "PAG") if part in known}
        if parts == have and known.replace("ControlNet", "").replace("PAG", "") == plain:
            return known
    return name


def class_of_model(model: str, task: str, call: cst.Call, pipelines: Pipelines) -> str:
    """Return the class that a generic class builds for a hub id of diffusers' own examples; empty for other ids."""
    found = [name for name in documented().get(model, ()) if pipeline_class(name) is not None]
    plain = _plain(found)
    return concrete(task, plain, call, pipelines) if plain else ""


def _plain(names: list[str]) -> str:
    """Return the one of several classes that load a model which its index names: the text-to-image class."""
    tables = auto_pipelines().get("AutoPipelineForText2Image", {}).values()
    known = [name for name in names if name in tables and "ControlNet" not in name and "PAG" not in name]
    if len(known) == 1 or len(names) == 1:
        return (known or names)[0]
    images = auto_pipelines().get("AutoPipelineForImage2Image", {}).values()
    known = [name for name in names if name in images and "ControlNet" not in name and "PAG" not in name]
    if len(known) == 1:
        return known[0]
    stems = {name: name.partition("Pipeline")[0] for name in names}
    return next((n for n in names if all(stem.startswith(stems[n]) for stem in stems.values())), "")


@cache
def documented() -> Mapping[str, tuple[str, ...]]:
    """Return, for each hub id in the installed diffusers' examples, the classes they load it with.

    An example that loads it with a generic class is that of the class its file defines, if it loads nothing else so.
    """
    root = pipelines_root()
    found: dict[str, dict[str, None]] = {}
    for file in sorted(root.rglob("*.py")) if root else ():
        data = file.read_bytes()
        names = {match[1]: match[2] for match in NAMED.finditer(data)}
        loads = [(m[1].decode(), names.get(m[2], m[2]).strip(b"\"'").decode()) for m in LOADED.finditer(data)]
        generic = {model for name, model in loads if is_generic(name)}
        own = [match[1].decode() for match in DEFINED.finditer(data)]
        for name, model in loads:
            if "/" in model and not is_generic(name):
                found.setdefault(model, {})[name] = None
            elif "/" in model and len(generic) == len(own) == 1:
                found.setdefault(model, {})[own[0]] = None
    return {model: tuple(classes) for model, classes in found.items()}
