"""The lines that build a pipeline as its source does: parts of their own, adapters, what is switched on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.component import ComponentOp
from diffopt.ir.description import JSON
from diffopt.ir.dialect import components, scheduler_of
from diffopt.ir.emit_statements import literal

SWITCHES = (
    "enable_vae_slicing",
    "enable_vae_tiling",
    "enable_slicing",
    "enable_tiling",
    "enable_attention_slicing",
    "enable_freeu",
    "fuse_qkv_projections",
)
"""Methods that the emitted code calls as the source does; others depend on the device or on code of the source."""


@dataclass(frozen=True)
class Construction:
    """How the emitted code builds its pipeline.

    Args:
        before: lines that load parts of their own.
        given: arguments of the pipeline's `from_pretrained` for those parts.
        after: lines that follow the construction.
        left: what the source does and the emitted code does not.
    """

    imports: frozenset[tuple[str, str]]
    before: tuple[str, ...]
    given: tuple[str, ...]
    after: tuple[str, ...]
    left: tuple[str, ...]


def construction(module: ModuleOp) -> Construction:
    """Return how to build the pipeline that a module describes."""
    named = components(module)
    values = named["pipeline"].values
    own = {name: part for name, part in named.items() if name != "pipeline" and part.values.get("model")}
    imports = {_library(part) for part in own.values()}
    before = [_load(name, part, str(values["dtype"])) for name, part in own.items()]
    after: list[str] = []
    scheduler = scheduler_of(module)
    swapped = scheduler.values.get("swapped")
    if isinstance(swapped, dict) and "overrides" not in scheduler.values:
        imports.add(_library(scheduler))
        name = scheduler.sym_name.data
        arguments = "".join(f", {key}={literal(value)}" for key, value in sorted(swapped.items()))
        after.append(f"pipe.{name} = {_library(scheduler)[1]}.from_config(pipe.{name}.config{arguments})")
    after += _adapters(_listed(values.get("adapters")))
    left: list[str] = []
    for name, part in named.items():
        for item in _listed(part.values.get("present")):
            method, arguments_given = str(item.get("name", "")), item.get("arguments")
            if method in SWITCHES:
                target = "pipe" if name == "pipeline" else f"pipe.{name}"
                after.append(f"{target}.{method}({_keywords(arguments_given)})")
            else:
                left.append(method)
    without = values.get("without")
    given = [f"{name}={name}" for name in own]
    given += [f"{name}=None" for name in (without if isinstance(without, list) else ())]
    return Construction(frozenset(imports), tuple(before), tuple(given), tuple(after), tuple(left))


def _load(name: str, part: ComponentOp, dtype: str) -> str:
    return f"{name} = {_library(part)[1]}.from_pretrained({literal(part.values['model'])}, dtype=torch.{dtype})"


def _library(part: ComponentOp) -> tuple[str, str]:
    library, _, class_name = part.class_name.data.rpartition(".")
    return library, class_name


def _adapters(adapters: list[Mapping[str, JSON]]) -> Iterator[str]:
    """Yield the lines that load adapters, in order, and then set how strong they are."""
    lora: list[tuple[str, JSON]] = []
    images: list[JSON] = []
    for item in adapters:
        model, weight, name = item.get("model"), str(item.get("weight_name", "")), item.get("name")
        folder, _, file = weight.rpartition("/")
        match item.get("kind"):
            case "lora":
                given = _keywords({"weight_name": weight, "adapter_name": name})
                yield f"pipe.load_lora_weights({_joined(literal(model), given)})"
                if item.get("fused"):
                    yield f"pipe.fuse_lora({_keywords({'lora_scale': item.get('scale')})})"
                else:
                    lora.append((str(name or f"default_{len(lora)}"), item.get("scale")))
            case "ip_adapter":
                yield f"pipe.load_ip_adapter({literal(model)}, subfolder={literal(folder)}, weight_name={literal(file)})"
                images.append(item.get("scale"))
            case "textual_inversion":
                given = _keywords({"weight_name": weight, "token": name})
                yield f"pipe.load_textual_inversion({_joined(literal(model), given)})"
    if any(scale is not None for _, scale in lora):
        names: list[JSON] = [name for name, _ in lora]
        weights: list[JSON] = [1.0 if scale is None else scale for _, scale in lora]
        yield f"pipe.set_adapters({literal(names)}, adapter_weights={literal(weights)})"
    if any(scale is not None for scale in images):
        scales: list[JSON] = [1.0 if scale is None else scale for scale in images]
        yield f"pipe.set_ip_adapter_scale({literal(scales[0] if len(scales) == 1 else scales)})"


def _listed(value: JSON) -> list[Mapping[str, JSON]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _keywords(given: JSON) -> str:
    """Write keyword arguments; what is empty or not given is left out."""
    pairs = given.items() if isinstance(given, dict) else ()
    return ", ".join(f"{key}={literal(value)}" for key, value in pairs if value is not None and value != "")


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))
