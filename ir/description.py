"""What a lifter found out about a pipeline, and how it becomes a module of the `diffusion` dialect."""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from diffopt.ir.errors import DiffoptError

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

InputKind: TypeAlias = Literal["image", "mask", "control", "latent", "embedding", "video", "audio", "other"]
AdapterKind: TypeAlias = Literal["lora", "ip_adapter", "textual_inversion"]

DENOISERS = ("unet", "transformer")
"""Names that `diffusers` gives to the component called at every step."""

OTHER_DENOISERS = ("transformer_2", "image_unet", "decoder", "prior", "prior_prior", "diffusion_decoder", "model")
"""Names of the component called at every step in pipelines of several stages, experts or media."""


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
class Assumption:
    """A reading that the source does not prove, and that is taken all the same.

    Args:
        name: of what was read so.
        text: what was taken to be true, as a sentence without a full stop.
    """

    name: str
    span: Span | None
    text: str

    def __str__(self) -> str:
        return (f"{self.span.file}:{self.span.line}: " if self.span else "") + f"assumed: {self.text}"


@dataclass(frozen=True)
class ComponentDescription:
    """One part of a pipeline, by its name in `model_index.json`.

    Args:
        model: directory or hub id it is loaded from, where that is not the pipeline's own.
    """

    name: str
    class_name: str
    config: Mapping[str, JSON]
    model: str = ""


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
        assumptions: what was read though the source does not prove it.
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
    assumptions: tuple[Assumption, ...] = ()

    def component(self, name: str) -> ComponentDescription | None:
        """Return the component of that name, if there is one."""
        return next((c for c in self.components if c.name == name), None)


def build_module(description: PipelineDescription) -> ModuleOp:
    """Write a description as a module at stage LIFTED.

    Raises:
        DiffoptError: an unknown value is left, the pipeline has no denoiser, scheduler, text encoder or VAE where its
            class needs one, or a name or number is not what it should be.
    """
    from diffopt.ir.structure import build

    if description.unknowns:
        raise _refusal(description)
    _check(description)
    return build(description)


def build_chain(descriptions: Sequence[PipelineDescription]) -> ModuleOp:
    """Write several pipelines of one script as a module of one nested module each, in the order of their calls.

    Raises:
        DiffoptError: as `build_module` does, or two pipelines share a name.
    """
    from xdsl.dialects.builtin import ModuleOp, StringAttr

    names = [description.name for description in descriptions]
    for name in names:
        if names.count(name) > 1:
            raise DiffoptError(f"two pipelines are named {name!r}", where=descriptions[0].source)
    source = symbol(descriptions[0].name if descriptions else "empty")
    return ModuleOp([build_module(d) for d in descriptions], sym_name=StringAttr(f"{source}_chain"))


def spans_of(module: ModuleOp) -> dict[str, Span]:
    """Return the source spans that a module carries, by role."""
    from diffopt.ir.dialect import from_attribute

    attribute = module.attributes.get("spans")
    spans = from_attribute(attribute) if attribute is not None else None
    return {name: Span.parse(str(text)) for name, text in spans.items()} if isinstance(spans, dict) else {}


def assumptions_of(module: ModuleOp) -> tuple[Assumption, ...]:
    """Return what was assumed of a module and of those nested in it, each once."""
    from diffopt.ir.dialect import from_attribute

    found: dict[Assumption, None] = {}
    for op in module.walk():
        attribute = op.attributes.get("assumptions")
        entries = from_attribute(attribute) if attribute is not None else None
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict):
                place = entry.get("span")
                span = Span.parse(str(place)) if place else None
                found[Assumption(str(entry.get("name", "")), span, str(entry.get("text", "")))] = None
    return tuple(found)


def _refusal(description: PipelineDescription) -> DiffoptError:
    """Name all that is unknown at once."""
    first, *others = description.unknowns
    places = {u.name: f"line {u.span.line}: " if u.span else "" for u in others}
    also = "".join(f"; nor can `{u.name}` ({places[u.name]}{u.reason})" for u in others)
    return DiffoptError(
        f"`{first.name}` cannot be known without running the script ({first.reason}){also}",
        where=f"{first.span.file}:{first.span.line}" if first.span else description.source,
        hint=f"give {'them' if others else 'it'} with "
        + " ".join(f"--set {unknown.name}=VALUE" for unknown in description.unknowns),
    )


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


def vae_scale(config: Mapping[str, object]) -> int | None:
    """Return how many pixels a side one value of a latent stands for, by the VAE's configuration; None where it does not tell."""
    blocks = config.get("block_out_channels")
    return 2 ** (len(blocks) - 1) if isinstance(blocks, list) and blocks else None


def is_name(text: str) -> bool:
    """Tell whether a text may stand as a name in emitted code."""
    return text.isascii() and text.isidentifier() and not keyword.iskeyword(text)


def symbol(name: str) -> str:
    """Return a name that a module may have."""
    cleaned = "".join(c if (c.isascii() and c.isalnum()) or c == "_" else "_" for c in name)
    return cleaned if cleaned and not cleaned[0].isdigit() else f"pipeline_{cleaned}"
