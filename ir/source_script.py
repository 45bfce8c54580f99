"""Lift a script: the pipeline it builds and the call it makes, read off its source without running it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import libcst as cst

from diffopt.ir.description import ComponentDescription, PipelineDescription, Span, Unknown
from diffopt.ir.errors import DiffoptError
from diffopt.ir.script_arguments import argument
from diffopt.ir.script_choice import Choice, choose
from diffopt.ir.script_components import changes, check_adapters, component, find_directory
from diffopt.ir.script_kinds import Known, Missing, Symbol, Value
from diffopt.ir.script_pipelines import Pipelines, Site
from diffopt.ir.script_text import parse_script, read_script
from diffopt.ir.source_directory import describe_directory


@dataclass(frozen=True)
class Field:
    """A value of the description that the call gives.

    Args:
        name: in the description and for `--set`.
        argument: the keyword of the pipeline's call.
        read: makes the value from a constant or a setting's text; raises ValueError if it is no such value.
        kind: what the value must be, in words.
    """

    name: str
    argument: str
    read: Callable[[object], object]
    kind: str


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str) or int(value) < 1:
        raise ValueError
    return int(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or not -1e6 < float(value) < 1e6:
        raise ValueError
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004
    return value


def _dtype(value: object) -> str:
    name = value.name.removeprefix("torch.") if isinstance(value, Symbol) else value
    name = DTYPES.get(name, name) if isinstance(name, str) else ""
    if name not in DTYPES.values():
        raise ValueError
    return str(name)


DTYPES = {
    "half": "float16",
    "float": "float32",
    "auto": "float32",
    "float16": "float16",
    "float32": "float32",
    "bfloat16": "bfloat16",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp32": "float32",
}
FIELDS = (
    Field("steps", "num_inference_steps", _count, "a whole number from 1"),
    Field("guidance", "guidance_scale", _number, "a number"),
    Field("height", "height", _count, "a number of pixels"),
    Field("width", "width", _count, "a number of pixels"),
    Field("negative_prompt", "negative_prompt", _text, "text"),
)
OTHER = {
    "batch": Field("batch", "num_images_per_prompt", _count, "a whole number from 1"),
    "dtype": Field("dtype", "dtype", _dtype, f"one of {', '.join(sorted(set(DTYPES.values())))}"),
    "model": Field("model", "", _text, "a model directory"),
    "scheduler": Field("scheduler", "", _text, "a scheduler class of diffusers"),
    "pipeline": Field("pipeline", "", _text, "a name of the script"),
}
ANY_CLASS = ("diffusers.DiffusionPipeline", "diffusers.AutoPipelineForText2Image")
"""Classes that build whatever class the model directory names."""

SETTINGS = {**{field.name: field for field in FIELDS}, **OTHER}
"""What `--set NAME=VALUE` takes."""


def describe_script(path: str | Path, *, settings: Mapping[str, str] | None = None) -> PipelineDescription:
    """Describe the pipeline that a script builds and the call it makes.

    Args:
        path: a `.py` file in UTF-8; it is read, never run.
        settings: values for what the source does not say, by the names of `SETTINGS`; they go before the source.

    Raises:
        DiffoptError: the file cannot be read, builds no pipeline or several, or its model directory is not there.
    """
    return describe_text(read_script(path), path, settings=settings)


def describe_text(text: str, path: str | Path, *, settings: Mapping[str, str] | None = None) -> PipelineDescription:
    """Describe the pipeline in a script's text; `path` places it."""
    try:
        return _Lift(text, path, _read_settings(settings or {})).description()
    except RecursionError:
        raise DiffoptError("too involved to be read", where=str(path)) from None


def _read_settings(settings: Mapping[str, str]) -> dict[str, object]:
    read: dict[str, object] = {}
    for name, text in settings.items():
        if name not in SETTINGS:
            raise DiffoptError(f"nothing is called {name!r}", where="--set", hint=f"there is {', '.join(SETTINGS)}")
        try:
            read[name] = SETTINGS[name].read(text)
        except ValueError:
            raise DiffoptError(f"{name}={text}: not {SETTINGS[name].kind}", where="--set") from None
    return read


class _Lift:
    """One lift: gathers values, and beside them what stays unknown."""

    def __init__(self, text: str, path: str | Path, settings: Mapping[str, object]) -> None:
        self.script = parse_script(text, path)
        self.pipelines = Pipelines(self.script)
        self.values = self.pipelines.values
        self.settings = settings
        self.choice: Choice = choose(self.pipelines, str(settings.get("pipeline", "")))
        self.pipeline_class = self.choice.sites[0].pipeline_class
        self.unknowns: list[Unknown] = []
        self.spans: dict[str, Span] = {}

    def description(self) -> PipelineDescription:
        check_adapters(self.pipelines, self.choice)
        site = self.choice.sites[0]
        base = describe_directory(self._model())
        self._note_spans()
        found: dict[str, object] = {}
        self.pipeline_class = base.pipeline_class if site.pipeline_class in ANY_CLASS else site.pipeline_class
        for field in FIELDS:
            value = self._from_calls(field)
            if value is not None:
                found[field.name] = value
        described = replace(
            base,
            name=self.choice.name,
            pipeline_class=self.pipeline_class,
            components=self._components(base),
            batch=self._batch(),
            dtype=self._dtype(),
            source=self.script.path,
            spans=self.spans,
            **found,  # type: ignore[arg-type]
        )
        return replace(described, unknowns=tuple(self.unknowns))

    def _unknown(self, name: str, missing: Missing) -> None:
        if all(unknown.name != name for unknown in self.unknowns):
            self.unknowns.append(Unknown(name, self.script.span(missing.node), missing.reason))

    def _note_spans(self) -> None:
        for role, nodes in (
            ("construct", [site.chained for site in self.choice.sites]),
            ("call", list(self.choice.calls)),
        ):
            for index, node in enumerate(nodes):
                self.spans[role if index == 0 else f"{role}_{index + 1}"] = self.script.span(node)

    def _model(self) -> str:
        """Return the directory of the model."""
        given = self.settings.get("model")
        if given is not None:
            return self._directory(str(given), "--set model")
        known = [self._model_of(site) for site in self.choice.sites]
        value = self.values.agree(known, self.choice.sites[0].call)
        if isinstance(value, Missing):
            raise DiffoptError(
                f"the model cannot be known without running the script: {value.reason}",
                where=self.script.where(value.node),
                hint="give it with --set model=DIRECTORY",
            )
        if not isinstance(value.value, str | PurePath):
            raise DiffoptError(
                "the model is not given as a directory", where=self.script.where(value.origin), hint="use --set model="
            )
        return self._directory(str(value.value), self.script.where(self.choice.sites[0].call))

    def _model_of(self, site: Site, depth: int = 0) -> Value:
        call = site.call
        if site.loader == "from_pipe" and call.args and depth < 4:
            sources = sorted(self.pipelines.of(call.args[0].value), key=lambda s: self.script.line(s.call))
            return self.values.agree([self._model_of(source, depth + 1) for source in sources], call)
        if site.loader != "from_pretrained":
            how = f"`{site.loader}`" if site.loader else "built from components"
            raise DiffoptError(
                f"a pipeline {how} is not lifted yet",
                where=self.script.where(call),
                hint="save it with save_pretrained and load that directory, or give --set model=DIRECTORY",
            )
        first = next((arg for arg in call.args if arg.keyword is None), None)
        if first is not None and first.star:
            return self.values.runtime(first)
        if first is not None:
            return self.values.of(first.value)
        given = argument(self.values, call, "pretrained_model_name_or_path")
        if given is None or isinstance(given, Missing):
            return given or Missing("`from_pretrained` is given no model", call)
        return self.values.of(given.value)

    def _directory(self, model: str, where: str) -> str:
        found = find_directory(model, self.script.path)
        if found is None:
            raise DiffoptError(
                f"model directory not found: {model}", where=where, hint="download it and give --set model=DIRECTORY"
            )
        return str(found)

    def _from_calls(self, field: Field) -> object | None:
        """Return what the calls give for a field; `None` leaves the pipeline's default."""
        if field.name in self.settings:
            return self.settings[field.name]
        known: list[Value] = []
        absent = 0
        for call in self.choice.calls:
            given = argument(self.values, call, field.argument, self.pipeline_class)
            if given is None:
                absent += 1
                continue
            known.append(given if isinstance(given, Missing) else self.values.of(given.value))
            place = given.node if isinstance(given, Missing) else given.value
            self.spans.setdefault(field.name, self.script.span(place))
        if not known:
            return None
        value = self.values.agree(known, self.choice.calls[0])
        if absent and isinstance(value, Known):
            value = Missing("only some of the calls give it", self.choice.calls[0])
        return self._checked(field, value)

    def _checked(self, field: Field, value: Value) -> object | None:
        if isinstance(value, Known) and value.value is None and field.name != "steps":
            return None
        if isinstance(value, Known):
            try:
                if isinstance(value.value, str) and field.read in (_count, _number):
                    raise ValueError
                return field.read(value.value)
            except (ValueError, TypeError):
                value = Missing(f"`{self.values.short(value.origin)}` is not {field.kind}", value.origin)
        self._unknown(field.name, value)
        return None

    def _batch(self) -> int:
        if "batch" in self.settings:
            return int(str(self.settings["batch"]))
        images = self._from_calls(OTHER["batch"])
        sizes = []
        for call in self.choice.calls:
            prompt = argument(self.values, call, "prompt") or next((a for a in call.args if not a.keyword), None)
            value = None if prompt is None or isinstance(prompt, Missing) else self.values.of(prompt.value)
            sizes.append(len(value.value) if isinstance(value, Known) and isinstance(value.value, list | tuple) else 1)
            if isinstance(value, Missing) and isinstance(value.node, cst.ListComp | cst.List | cst.BinaryOperation):
                self._unknown("batch", Missing("the number of prompts is not known", value.node))
        if len(set(sizes)) > 1:
            self._unknown("batch", Missing("the calls differ in their number of prompts", self.choice.calls[0]))
        return int(str(images or 1)) * max(sizes, default=1)

    def _dtype(self) -> str:
        if "dtype" in self.settings:
            return str(self.settings["dtype"])
        field = OTHER["dtype"]
        known: list[Value] = []
        for site in self.choice.sites:
            given = argument(self.values, site.call, "dtype") or argument(self.values, site.call, "torch_dtype")
            if given is not None:
                known.append(given if isinstance(given, Missing) else self.values.of(given.value))
        for name in ("to", "half"):
            for call in self.values.calls_by_name.get(name, ()):
                if isinstance(call.func, cst.Attribute) and self.pipelines.of(call.func.value) & set(self.choice.sites):
                    known += self._dtypes_of(call, name)
        if not known:
            return "float32"
        value = self.values.agree(known[-1:] if len(self.choice.sites) == 1 else known, self.choice.sites[0].call)
        return str(self._checked(field, value) or "float32")

    def _dtypes_of(self, call: cst.Call, name: str) -> Sequence[Value]:
        if name == "half":
            return [Known(Symbol("torch.float16"), call)]
        values = [self.values.of(arg.value) for arg in call.args]
        return [v for v in values if isinstance(v, Known) and isinstance(v.value, Symbol) and "float" in v.value.name]

    def _components(self, base: PipelineDescription) -> tuple[ComponentDescription, ...]:
        parts = {part.name: part for part in base.components}
        for change in changes(self.pipelines, self.choice):
            if change.name not in parts and change.name != "scheduler":
                continue
            self.spans[change.name] = self.script.span(change.place)
            made = component(self.pipelines, change, parts.get(change.name))
            if isinstance(made, Missing):
                if change.name not in self.settings:
                    self._unknown(change.name, made)
            elif made is None:
                parts.pop(change.name, None)
            else:
                parts[change.name] = replace(made, name=change.name)
        if "scheduler" in self.settings and "scheduler" in parts:
            class_name = str(self.settings["scheduler"]).rpartition(".")[2]
            parts["scheduler"] = replace(parts["scheduler"], class_name=f"diffusers.{class_name}")
        return tuple(parts.values())
