"""What a lifter found out about a pipeline, and how it becomes a module of the `diffusion` dialect."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from diffopt.ir.errors import DiffoptError

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp
    from xdsl.ir import SSAValue

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

InputKind: TypeAlias = Literal["image", "mask", "control", "latent", "embedding", "video", "audio", "other"]
AdapterKind: TypeAlias = Literal["lora", "ip_adapter", "textual_inversion"]

DENOISERS = ("unet", "transformer")
"""Names that `diffusers` gives to the component called at every step."""


@dataclass(frozen=True)
class Span:
    """A range in a source file: lines count from 1, columns from 0, the end is exclusive."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}-{self.end_line}:{self.end_column}"

    @classmethod
    def parse(cls, text: str) -> Span:
        """Read back what ``str`` printed."""
        file, line, middle, end_column = text.rsplit(":", 3)
        column, end_line = middle.split("-")
        return cls(file, int(line), int(column), int(end_line), int(end_column))


@dataclass(frozen=True)
class Unknown:
    """A value that cannot be known without running the source."""

    name: str
    span: Span | None
    reason: str


@dataclass(frozen=True)
class ComponentDescription:
    """One part of a pipeline, by its name in `model_index.json`."""

    name: str
    class_name: str
    config: Mapping[str, JSON]


@dataclass(frozen=True)
class Input:
    """A value that the call takes at run time, beside prompt, seed and device.

    Args:
        name: the argument of the call that it is given to.
        source: name of the pipeline of the same script whose output it is; empty for one that comes from outside.
    """

    name: str
    kind: InputKind
    source: str = ""


@dataclass(frozen=True)
class Adapter:
    """Small weights loaded into a pipeline.

    Args:
        model: directory or hub id they come from.
        name: what the script calls it; empty for none.
        scale: strength; `None` is the library's default.
        fused: whether the weights are folded into the component's own.
    """

    kind: AdapterKind
    model: str
    weight_name: str = ""
    name: str = ""
    scale: float | None = None
    fused: bool = False
    span: Span | None = None


@dataclass(frozen=True)
class Present:
    """An optimization that the source applies already.

    Args:
        name: of the method, function or argument that applies it.
        target: component it applies to, or `pipeline`.
    """

    name: str
    target: str
    arguments: Mapping[str, JSON] = field(default_factory=dict)
    span: Span | None = None


@dataclass(frozen=True)
class PipelineDescription:
    """A pipeline and the call made to it.

    Args:
        model: model directory or hub id, as the emitted code should load it.
        guidance: classifier-free guidance scale; 1 or less means no guidance.
        height, width: of the image, in pixels; `None` is the model's own default, in configuration files not on disk.
        source: path of the script it was lifted from; empty for a directory.
        spans: where in the source `construct` and `call` (and others) stand.
        inputs: what the call takes beside prompt, seed and device.
        adapters: in order of loading.
        present: optimizations applied by the source, in its order.
        arguments: constant arguments of the call that no other field holds.
        settings: constants in `model_index.json`, as `boundary_ratio`.
    """

    name: str
    pipeline_class: str
    model: str
    components: tuple[ComponentDescription, ...]
    steps: int
    guidance: float
    height: int | None
    width: int | None
    batch: int = 1
    dtype: str = "float32"
    negative_prompt: str = ""
    source: str = ""
    spans: Mapping[str, Span] = field(default_factory=dict)
    unknowns: tuple[Unknown, ...] = ()
    inputs: tuple[Input, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    present: tuple[Present, ...] = ()
    arguments: Mapping[str, JSON] = field(default_factory=dict)
    settings: Mapping[str, JSON] = field(default_factory=dict)

    def component(self, name: str) -> ComponentDescription | None:
        """Return the component of that name, if there is one."""
        return next((c for c in self.components if c.name == name), None)


def build_module(description: PipelineDescription) -> ModuleOp:
    """Write a description as a module at stage LIFTED.

    Raises:
        DiffoptError: an unknown value is left, the pipeline has no denoiser, scheduler, text encoder or VAE, or a
            name or number is not what it should be.
    """
    from xdsl.dialects.builtin import FunctionType, ModuleOp, StringAttr, i64
    from xdsl.dialects.func import FuncOp, ReturnOp
    from xdsl.ir import Block, Region

    from diffopt.ir import dialect as d

    if description.unknowns:
        first = description.unknowns[0]
        raise DiffoptError(
            f"`{first.name}` cannot be known without running the script ({first.reason})",
            where=f"{first.span.file}:{first.span.line}" if first.span else description.source,
            hint=f"give it with --set {first.name}=VALUE",
        )
    _check(description)
    denoiser = _one_of(description, DENOISERS, "denoiser")
    scheduler = _one_of(description, ("scheduler",), "scheduler")
    encoder = _one_of(description, ("text_encoder",), "text encoder")
    vae = _one_of(description, ("vae",), "VAE")

    call: dict[str, JSON] = {
        "model": description.model,
        "height": description.height,
        "width": description.width,
        "batch": description.batch,
        "dtype": description.dtype,
        "negative_prompt": description.negative_prompt,
    }
    parts: list[d.ComponentOp] = [d.ComponentOp("pipeline", description.pipeline_class, call)]
    for part in description.components:
        config: JSON = {k: v for k, v in part.config.items() if v is not None and not k.startswith("_")}
        attributes: dict[str, JSON] = {"config": config} if config else {}
        if part.name == scheduler:
            attributes = {"steps": description.steps, **attributes}
        parts.append(d.ComponentOp(part.name, part.class_name, attributes))

    body = Block(arg_types=(d.TextType(), d.TextType(), i64))
    prompt, negative, seed = body.args
    for value, hint in ((prompt, "prompt"), (negative, "negative"), (seed, "seed")):
        value.name_hint = hint
    guided = description.guidance > 1.0
    cond = d.EncodeOp(encoder, prompt, "c")
    uncond = d.EncodeOp(encoder, negative, "u")
    noise = d.NoiseOp(seed)
    embeddings: tuple[SSAValue, ...] = (uncond.result, cond.result) if guided else (cond.result,)
    loop = d.denoise_loop(
        scheduler, denoiser, 0, description.steps, noise.result, embeddings, description.guidance if guided else None
    )
    image = d.DecodeOp(vae, loop.result)
    body.add_ops([cond, *([uncond] if guided else []), noise, loop, image, ReturnOp(image.result)])
    generate = FuncOp("generate", FunctionType.from_lists([a.type for a in body.args], [d.ImageType()]), Region(body))

    module = ModuleOp([*parts, generate], sym_name=StringAttr(_symbol(description.name)))
    if description.source:
        module.attributes["source"] = d.to_attribute(description.source)
    if description.spans:
        module.attributes["spans"] = d.to_attribute({name: str(span) for name, span in description.spans.items()})
    return module


def spans_of(module: ModuleOp) -> dict[str, Span]:
    """Return the source spans that a module carries, by role."""
    from diffopt.ir.dialect import from_attribute

    attribute = module.attributes.get("spans")
    spans = from_attribute(attribute) if attribute is not None else None
    return {name: Span.parse(str(text)) for name, text in spans.items()} if isinstance(spans, dict) else {}


def _check(description: PipelineDescription) -> None:
    """Check what a lifter read: names of components and classes will be names in code."""
    where = description.source or description.model
    seen = {"pipeline", "generate"}
    for part in description.components:
        if not is_name(part.name) or part.name in seen:
            raise DiffoptError(f"{part.name!r} cannot be the name of a component", where=where)
        seen.add(part.name)
    for class_name in (description.pipeline_class, *(part.class_name for part in description.components)):
        if not all(map(is_name, class_name.split("."))):
            raise DiffoptError(f"{class_name!r} is no class name", where=where)
    if description.steps < 1:
        raise DiffoptError(f"{description.steps} steps are none", where=where)
    for name in ("guidance", "height", "width", "batch"):
        value = getattr(description, name)
        if value is not None and not 0 <= value < 1e6:
            raise DiffoptError(f"{name}={value} is out of range", where=where)


def is_name(text: str) -> bool:
    """Tell whether a text may stand as a name in emitted code."""
    return text.isascii() and text.isidentifier() and not keyword.iskeyword(text)


def _one_of(description: PipelineDescription, names: tuple[str, ...], what: str) -> str:
    for name in names:
        if description.component(name) is not None:
            return name
    raise DiffoptError(
        f"{description.pipeline_class} has no {what} among its components",
        where=description.source or description.model,
        hint="only text-to-image pipelines with a text encoder, denoiser, scheduler and VAE are lifted so far",
    )


def _symbol(name: str) -> str:
    cleaned = "".join(c if (c.isascii() and c.isalnum()) or c == "_" else "_" for c in name)
    return cleaned if cleaned and not cleaned[0].isdigit() else f"pipeline_{cleaned}"
