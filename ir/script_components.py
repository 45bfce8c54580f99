"""Components that a script puts in place of the ones of its model directory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import libcst as cst

from diffopt.ir.description import JSON, ComponentDescription
from diffopt.ir.errors import DiffoptError
from diffopt.ir.script_choice import Choice
from diffopt.ir.script_kinds import Known, Missing, Symbol
from diffopt.ir.script_names import bindings
from diffopt.ir.script_pipelines import Pipelines
from diffopt.ir.source_directory import CONFIG_FILES

NOT_COMPONENTS = [
    "dtype",
    "torch_dtype",
    "variant",
    "revision",
    "use_safetensors",
    "cache_dir",
    "token",
    "local_files_only",
    "safety_checker",
    "feature_extractor",
    "requires_safety_checker",
    "low_cpu_mem_usage",
    "device_map",
    "max_memory",
    "force_download",
    "proxies",
    "output_loading_info",
    "mirror",
    "custom_revision",
    "provider",
    "sess_options",
    "load_connected_pipeline",
    "use_onnx",
    "add_watermarker",
    "watermarker",
    "force_zeros",
    "trust_remote_code",
    "disable_mmap",
    "offload_folder",
    "offload_state_dict",
]
"""Keywords of `from_pretrained` that change no component the module describes."""

ADAPTERS = ("load_lora_weights", "load_ip_adapter", "load_textual_inversion", "fuse_lora", "unload_lora_weights")
WRAPPERS = ("torch.compile", "torch.jit.trace", "torch.jit.script")


@dataclass(frozen=True, eq=False)
class Change:
    """A component given or assigned by the script: its name, its expression, and the place to show."""

    name: str
    value: cst.BaseExpression
    place: cst.CSTNode


def changes(pipelines: Pipelines, choice: Choice) -> Iterator[Change]:
    """Yield what the script changes of the model's components, in the order in which it happens."""
    for site in choice.sites:
        for arg in site.call.args:
            if arg.keyword is not None and arg.keyword.value not in NOT_COMPONENTS:
                yield Change(arg.keyword.value, arg.value, arg)
    for name, assigned in pipelines.values.attribute_targets.items():
        for place, value in assigned:
            if pipelines.of(place.value) & set(choice.sites):
                yield Change(name, value, pipelines.script.parents[pipelines.script.parents[place]])


def check_adapters(pipelines: Pipelines, choice: Choice) -> None:
    """Refuse what changes the weights in ways that are not lifted.

    Raises:
        DiffoptError: the script loads LoRA, IP-Adapter or textual inversion weights into the pipeline.
    """
    for name in ADAPTERS:
        for call in pipelines.values.calls_by_name.get(name, ()):
            if isinstance(call.func, cst.Attribute) and pipelines.of(call.func.value) & set(choice.sites):
                raise DiffoptError(
                    f"`{name}` is not lifted yet",
                    where=pipelines.script.where(call),
                    hint="save the pipeline with the adapter fused and load that directory",
                )


def component(
    pipelines: Pipelines, change: Change, current: ComponentDescription | None, depth: int = 0
) -> ComponentDescription | Missing | None:
    """Return the component that an expression makes, `current` when it only wraps it, `None` when it is taken out."""
    values, node = pipelines.values, change.value
    known = values.of(node)
    if isinstance(known, Known) and known.value is None:
        return None
    if isinstance(node, cst.Name) and depth < 8:
        made = bindings(values.script, node)
        if len(made) == 1 and isinstance(made[0].node, cst.BaseExpression) and not made[0].steps:
            return component(pipelines, replace(change, value=made[0].node), current, depth + 1)
    if isinstance(node, cst.Attribute) and node.attr.value == change.name and pipelines.of(node.value):
        return current
    if not isinstance(node, cst.Call):
        return values.runtime(node)
    if values.symbol(node.func) in WRAPPERS and node.args:
        return component(pipelines, replace(change, value=node.args[0].value), current, depth + 1)
    function = node.func
    method = function.attr.value if isinstance(function, cst.Attribute) else ""
    if isinstance(function, cst.Attribute) and method in ("to", "eval", "half", "requires_grad_") and depth < 8:
        return component(pipelines, replace(change, value=function.value), current, depth + 1)
    maker = function.value if isinstance(function, cst.Attribute) and method.startswith("from_") else function
    made_class = values.of(maker)
    if not isinstance(made_class, Known) or not isinstance(made_class.value, Symbol):
        return values.runtime(node)
    return _made(pipelines, node, method, made_class.value.name, current)


def _made(
    pipelines: Pipelines, call: cst.Call, method: str, symbol: str, current: ComponentDescription | None
) -> ComponentDescription | Missing:
    values = pipelines.values
    library, _, name = symbol.partition(".")
    class_name = f"{library}.{name.rpartition('.')[2]}"
    given: dict[str, JSON] = {}
    for arg in call.args:
        if arg.star:
            return values.runtime(call)
        value = values.of(arg.value) if arg.keyword is not None else None
        if isinstance(value, Missing) and method != "from_pretrained":
            return value
        if arg.keyword is not None and isinstance(value, Known) and isinstance(value.value, str | int | float | None):
            given[arg.keyword.value] = value.value
    if method == "from_config":
        base: Mapping[str, JSON] = current.config if current is not None else {}
        if not call.args or not _is_config_of_pipeline(pipelines, call.args[0].value):
            return values.runtime(call)
        return ComponentDescription("", class_name, {**base, **given})
    if method == "from_pretrained":
        folder = values.of(call.args[0].value) if call.args else values.runtime(call)
        if isinstance(folder, Missing):
            return folder
        subfolder = given.get("subfolder", "")
        path = find_directory(str(folder.value), pipelines.script.path)
        config = read_config(path / str(subfolder)) if path is not None else None
        if config is None:
            return Missing(f"no configuration in `{folder.value}`", call)
        return ComponentDescription("", class_name, {k: v for k, v in config.items() if not k.startswith("_")})
    if method:
        return values.runtime(call)
    return ComponentDescription("", class_name, given)


def _is_config_of_pipeline(pipelines: Pipelines, node: cst.BaseExpression, depth: int = 0) -> bool:
    """Say whether an expression is `pipe.scheduler.config`, directly, through a name, or with `dict` around it."""
    if isinstance(node, cst.Attribute) and node.attr.value == "config":
        holder = node.value
        return isinstance(holder, cst.Attribute) and bool(pipelines.of(holder.value))
    if isinstance(node, cst.Name) and depth < 4:
        made = bindings(pipelines.script, node)
        inner = made[0].node if len(made) == 1 else None
        return isinstance(inner, cst.BaseExpression) and _is_config_of_pipeline(pipelines, inner, depth + 1)
    return False


def find_directory(model: str, script: str) -> Path | None:
    """Return a model's directory: as written, seen from here or from the script's own folder."""
    for candidate in (Path(model).expanduser(), Path(script).absolute().parent / model):
        try:
            if candidate.is_dir():
                return candidate
        except (OSError, ValueError):
            continue
    return None


def read_config(folder: Path) -> dict[str, JSON] | None:
    """Return a component's configuration, if the folder has one."""
    for name in CONFIG_FILES:
        try:
            data = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return data if isinstance(data, dict) else None
    return None
