"""Components that a script puts in place of the ones of its model directory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import libcst as cst

from diffopt.ir.description import JSON, ComponentDescription
from diffopt.ir.model_index import CONFIG_FILES
from diffopt.ir.script_choice import Choice
from diffopt.ir.script_conditions import is_dead
from diffopt.ir.script_kinds import Known, LocalClass, LocalFunction, Missing, Symbol, Value
from diffopt.ir.script_names import bindings
from diffopt.ir.script_parameters import handed, returns
from diffopt.ir.script_pipelines import Pipelines
from diffopt.ir.script_values import Values

NOT_COMPONENTS = [
    "quantization_config",
    "custom_pipeline",
    "enable_pag",
    "pag_applied_layers",
    "config",
    "original_config",
    "original_config_file",
    "subfolder",
    "name",
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

WRAPPERS = ("torch.compile", "torch.jit.trace", "torch.jit.script", "copy.deepcopy")
SAME = ("to", "eval", "half", "float", "cuda", "cpu", "requires_grad_", "train", "prepare", "share_memory")
"""Methods that give back what they are called on."""


@dataclass(frozen=True, eq=False)
class Change:
    """A component given or assigned by the script: its name, its expression, and the place to show."""

    name: str
    value: cst.BaseExpression
    place: cst.CSTNode


def changes(pipelines: Pipelines, choice: Choice) -> Iterator[Change]:
    """Yield what the script changes of the model's components, in the order in which it happens."""
    for site in choice.sites:
        for arg in given(pipelines, site.call):
            if arg.keyword is not None and arg.keyword.value not in NOT_COMPONENTS:
                yield Change(arg.keyword.value, arg.value, arg)
    found = [
        Change(name, value, pipelines.script.parents[pipelines.script.parents[place]])
        for name, assigned in pipelines.values.attribute_targets.items()
        for place, value in assigned
        if pipelines.of(place.value) & set(choice.sites) and not is_dead(pipelines.values, place)
    ]
    yield from sorted(found, key=lambda change: pipelines.script.start(change.place))


def given(pipelines: Pipelines, call: cst.Call) -> Iterator[cst.Arg]:
    """Yield the arguments of a call, with those that `functools.partial` bound before."""
    inner = pipelines.values.partial_of(call)
    if inner is not None:
        yield from inner.args[1:]
    yield from call.args


def component(
    pipelines: Pipelines,
    change: Change,
    current: ComponentDescription | None,
    expected: Sequence[str] = (),
    depth: int = 0,
) -> ComponentDescription | Missing | None:
    """Return the component that an expression makes, `current` when it only wraps it, `None` when it is taken out.

    Args:
        expected: the classes that the pipeline takes there.
    """
    values, node = pipelines.values, change.value
    known = values.of(node)
    if isinstance(known, Known) and known.value is None:
        return None
    if depth > 12:
        return values.runtime(node)
    if isinstance(known, Known) and isinstance(node, cst.List | cst.Tuple):
        return values.runtime(node)
    inner = behind(pipelines, node)
    if inner is not None:
        return component(pipelines, replace(change, value=inner), current, expected, depth + 1)
    if isinstance(node, cst.Attribute) and node.attr.value == change.name and pipelines.of(node.value):
        return current or _expected(change.name, expected)
    if isinstance(node, cst.Attribute) and pipelines.of(node.value):
        return _expected(change.name, expected) or values.runtime(node)
    if isinstance(node, cst.List | cst.Tuple | cst.ListComp):
        single = [c for c in expected if "Multi" in c]
        return ComponentDescription("", single[0], {}) if single else values.runtime(node)
    if not isinstance(node, cst.Call):
        return values.runtime(node)
    function = node.func
    if isinstance(function, cst.Name) or (isinstance(function, cst.Attribute) and isinstance(function.value, cst.Name)):
        made = _returned(pipelines, change, current, expected, depth)
        if made is not None:
            return made
    method = function.attr.value if isinstance(function, cst.Attribute) else ""
    maker = function.value if isinstance(function, cst.Attribute) and method.startswith("from_") else function
    made_class = values.of(maker)
    if isinstance(made_class, Known) and isinstance(made_class.value, LocalClass):
        return ComponentDescription("", f"script.{made_class.value.node.name.value}", {})
    if not isinstance(made_class, Known) or not isinstance(made_class.value, Symbol):
        return values.runtime(node)
    return _made(pipelines, node, method, made_class.value.name, current, expected)


def behind(pipelines: Pipelines, node: cst.BaseExpression) -> cst.BaseExpression | None:
    """Return the expression that another one only names, wraps or moves."""
    values = pipelines.values
    if isinstance(node, cst.Name):
        made = [b for b in bindings(values.script, node) if isinstance(b.node, cst.BaseExpression) and not b.each]
        if len(made) == 1 and not made[0].steps:
            inner = made[0].node
            return inner if isinstance(inner, cst.BaseExpression) else None
        if len(made) == 1 and len(made[0].steps) == 1 and isinstance(made[0].node, cst.Tuple | cst.List):
            elements = made[0].node.elements
            return elements[made[0].steps[0]].value if made[0].steps[0] < len(elements) else None
        passed = [b.node for b in bindings(values.script, node) if isinstance(b.node, cst.Param)]
        if len(passed) == 1:
            given_by_callers = handed(values, passed[0])
            return given_by_callers[0] if len(given_by_callers) == 1 else None
        return None
    if isinstance(node, cst.IfExp):
        test = values.of(node.test)
        if isinstance(test, Known) and not isinstance(test.value, Symbol):
            return node.body if test.value else node.orelse
        return None
    if isinstance(node, cst.Attribute) and isinstance(node.value, cst.Name) and node.value.value == "self":
        assigned = values.attribute_targets.get(node.attr.value, ())
        return assigned[0][1] if len(assigned) == 1 else None
    if not isinstance(node, cst.Call):
        return None
    if values.symbol(node.func) in WRAPPERS and node.args:
        return node.args[0].value
    if isinstance(node.func, cst.Attribute) and node.func.attr.value in SAME:
        if node.func.attr.value == "prepare" and node.args:
            return node.args[0].value
        return node.func.value
    return None


def _returned(
    pipelines: Pipelines, change: Change, current: ComponentDescription | None, expected: Sequence[str], depth: int
) -> ComponentDescription | Missing | None:
    """Return the component that a function of the script makes; `None` where the call goes elsewhere."""
    values, node = pipelines.values, change.value
    assert isinstance(node, cst.Call)
    function = values.of(node.func)
    if not isinstance(function, Known) or not isinstance(function.value, LocalFunction):
        return None
    found = [r.value for r in returns(values, function.value.node) if r.value is not None]
    if len(found) != 1:
        return Missing(f"`{function.value.node.name.value}` makes it in {len(found)} ways", node)
    return component(pipelines, replace(change, value=found[0]), current, expected, depth + 1)


def _expected(name: str, expected: Sequence[str]) -> ComponentDescription | None:
    return ComponentDescription(name, expected[0], {}) if expected else None


def _made(
    pipelines: Pipelines,
    call: cst.Call,
    method: str,
    symbol: str,
    current: ComponentDescription | None,
    expected: Sequence[str],
) -> ComponentDescription | Missing:
    values = pipelines.values
    library, _, name = symbol.partition(".")
    class_name = f"{library}.{name.rpartition('.')[2]}"
    if name.rpartition(".")[2].startswith("Auto") and expected:
        # the annotation of the pipeline names the class that the model's own configuration would
        class_name = expected[0]
    named: dict[str, JSON] = {}
    for arg in call.args:
        if arg.star:
            return values.runtime(call)
        value = values.of(arg.value) if arg.keyword is not None else None
        if isinstance(value, Missing) and not method:
            return value
        if arg.keyword is not None and isinstance(value, Known) and isinstance(value.value, str | int | float | None):
            named[arg.keyword.value] = value.value
    if method == "from_config":
        base: Mapping[str, JSON] = current.config if current is not None else {}
        if not call.args or not _is_config_of_pipeline(pipelines, call.args[0].value):
            return ComponentDescription("", class_name, named) if call.args else values.runtime(call)
        return ComponentDescription("", class_name, {**base, **named})
    if not method:
        return ComponentDescription("", class_name, named)
    folder = _place(values, call)
    if isinstance(folder, Missing):
        return folder
    if not isinstance(folder.value, str | PurePath):
        return ComponentDescription("", class_name, {})
    path = find_directory(str(folder.value), pipelines.script.part(call).path)
    config = read_config(path / str(named.get("subfolder", ""))) if path is not None else None
    if config is None and path is not None and method == "from_pretrained":
        return Missing(f"no configuration in `{folder.value}`", call)
    if config is None:
        return ComponentDescription("", class_name, {"_name_or_path": str(folder.value)})
    return ComponentDescription("", class_name, {k: v for k, v in config.items() if not k.startswith("_")})


def _place(values: Values, call: cst.Call) -> Value:
    """Return the directory, hub id or file in `X.from_pretrained(place)`."""
    if call.args and call.args[0].keyword is None:
        return values.of(call.args[0].value)
    for arg in call.args:
        if arg.keyword is not None and arg.keyword.value.startswith("pretrained_model"):
            return values.of(arg.value)
    return values.runtime(call)


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
