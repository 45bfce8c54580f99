"""Lift one pipeline of a script: gather what is known of its construction, its set-up and its calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import libcst as cst

from diffopt.ir.description import (
    JSON,
    Adapter,
    Assumption,
    ComponentDescription,
    Input,
    PipelineDescription,
    Present,
    Span,
    Unknown,
)
from diffopt.ir.errors import DiffoptError
from diffopt.ir.pipeline_classes import pipeline_class
from diffopt.ir.script_adapters import Adapters
from diffopt.ir.script_arguments import argument
from diffopt.ir.script_checks import check_scheduler, check_size
from diffopt.ir.script_choice import Choice
from diffopt.ir.script_components import Change, changes, component, find_directory, given
from diffopt.ir.script_conditions import open_condition
from diffopt.ir.script_dtype import dtype_of
from diffopt.ir.script_flow import origins
from diffopt.ir.script_inputs import CALLBACKS, as_json, follows_data, input_kind, is_runtime, keywords
from diffopt.ir.script_kinds import Known, Missing, Symbol, Value
from diffopt.ir.script_library import library_constant
from diffopt.ir.script_models import class_of_model, concrete, is_generic, model_of
from diffopt.ir.script_pipelines import Pipelines, Site
from diffopt.ir.script_present import present
from diffopt.ir.script_settings import FIELDS, OTHER, SETTINGS, Field, count, number, read_settings, spelled
from diffopt.ir.script_threads import before
from diffopt.ir.source_directory import describe_model, hub_cache, snapshot

Settings = Mapping[str, object]


class Lift:
    """One lift: gathers values, and beside them what stays unknown.

    Args:
        names: of the other pipelines of the script, by their first site, to say where inputs come from.
    """

    def __init__(self, pipelines: Pipelines, choice: Choice, settings: Settings, names: Mapping[Site, str]) -> None:
        self.script, self.pipelines, self.values = pipelines.script, pipelines, pipelines.values
        self.choice, self.names = choice, names
        self.site = choice.sites[0]
        own = {key.partition(".")[2]: value for key, value in settings.items() if key.partition(".")[0] == choice.name}
        self.settings = {**{k: v for k, v in settings.items() if "." not in k}, **own}
        self.pipeline_class = self.site.pipeline_class
        self.unknowns: list[Unknown] = []
        self.differs = False
        self.inputs: dict[str, Input] = {}
        self.asked: set[str] = set(SETTINGS)
        self.spans: dict[str, Span] = {}
        self.assumptions: dict[str, Assumption] = {}
        self.fields = list(FIELDS)

    def description(self) -> PipelineDescription:
        """Return what was found."""
        self._note_spans()
        base = self._base()
        self.pipeline_class = base.pipeline_class
        owner = pipeline_class(self.pipeline_class)
        self.asked |= set(owner.call if owner is not None else ())
        found: dict[str, object] = {}
        self.fields = [spelled(field, owner) for field in FIELDS]
        for field in self.fields:
            value = self._from_calls(field)
            if value is not None:
                found[field.name] = value
        check_size(self.settings, owner)
        for left in base.unknowns:
            if left.name not in found:
                self.unknown(
                    left.name, Missing(left.reason, self.choice.calls[0] if self.choice.calls else self.site.call)
                )
        described = replace(
            base,
            name=self.choice.name,
            components=self._components(base),
            batch=self._batch(),
            dtype=self._dtype(),
            source=self.script.path,
            adapters=self._adapters(),
            **found,  # type: ignore[arg-type]
        )
        inputs, arguments, callbacks = self._arguments()
        if found.get("negative_prompt") == "":
            # Not the same as none: XL has zeros for none, and Flux guides only where one is given.
            arguments = {**arguments, **{f.argument: "" for f in self.fields if f.name == "negative_prompt"}}
        return replace(
            described,
            inputs=inputs,
            arguments=arguments,
            present=(*present(self.pipelines, self.choice), *callbacks),
            spans=self.spans,
            unknowns=tuple(self.unknowns),
            assumptions=self._assumed(),
        )

    def _assumed(self) -> tuple[Assumption, ...]:
        """Return what was assumed, in the order of the source."""
        for name, (node, text) in self.values.assumed.items():
            self._assume(name, node, text)
        return tuple(sorted(self.assumptions.values(), key=lambda a: (a.span.line if a.span else 0, a.name)))

    def _assume(self, name: str, node: cst.CSTNode, text: str) -> None:
        self.assumptions[name] = Assumption(name, self.script.span(node), text)

    def unknown(self, name: str, missing: Missing) -> object | None:
        """Note that a value is not known; return what the user gave for it."""
        self.asked.add(name)
        if name in self.settings:
            return self.settings[name]
        if all(unknown.name != name for unknown in self.unknowns):
            self.unknowns.append(Unknown(name, self.script.span(missing.node), missing.reason))
        return None

    def _note_spans(self) -> None:
        for role, nodes in (
            ("construct", [site.chained for site in self.choice.sites]),
            ("call", list(self.choice.calls)),
        ):
            for index, node in enumerate(nodes):
                self.spans[role if index == 0 else f"{role}_{index + 1}"] = self.script.span(node)

    def _base(self) -> PipelineDescription:
        """Return the description of the model itself."""
        where = self.script.where(self.site.call)
        model = self._model()
        directory = find_directory(model, self.script.part(self.site.call).path) if model else None
        if "model" in self.settings and directory is None and model.startswith((".", "/", "~")):
            raise DiffoptError(f"model directory not found: {model}", where="--set model")
        kind = str(self.settings.get("pipeline_class", "")) or self.site.pipeline_class
        for arg in given(self.pipelines, self.site.call):
            if arg.keyword is not None and arg.keyword.value == "custom_pipeline":
                self.unknown("pipeline_class", Missing("`custom_pipeline` names code that is not diffusers' own", arg))
        if directory is not None and is_generic(kind):
            base = describe_model(str(directory), "", where)
            made = concrete(kind, base.pipeline_class.rpartition(".")[2], self.site.call, self.pipelines)
            return describe_model(str(directory), made, where) if made else base
        if is_generic(kind) and model and snapshot(model, hub_cache()) is not None:
            base = describe_model(model, "", where)
            made = concrete(kind, base.pipeline_class.rpartition(".")[2], self.site.call, self.pipelines)
            return describe_model(model, made, where) if made else base
        if is_generic(kind) and model:
            made = class_of_model(model, kind, self.site.call, self.pipelines)
            if made:
                text = f"{model} is a {made}, as the examples of the installed diffusers load it"
                self._assume("pipeline_class", self.site.call, text)
            kind = f"diffusers.{made}" if made else kind
        classes = {site.pipeline_class for site in self.choice.sites}
        if len(classes) > 1 and "pipeline_class" not in self.settings:
            self.unknown("pipeline_class", Missing(f"it is one of {', '.join(sorted(classes))}", self.site.call))
        if is_generic(kind):
            short = kind.rpartition(".")[2]
            self.unknown(
                "pipeline_class",
                Missing(f"`{short}` takes its class from the model's index, which is not on disk", self.site.call),
            )
        elif pipeline_class(kind) is None:
            raise DiffoptError(
                f"the installed diffusers has no pipeline class `{kind.rpartition('.')[2]}`",
                where=where,
                hint="check the name, or give --set pipeline_class=NAME",
            )
        kind = kind if "." in kind else f"diffusers.{kind}"
        return replace(describe_model(str(directory or model), kind, where), pipeline_class=kind)

    def _model(self) -> str:
        """Return the directory, hub id or file of the model."""
        given = self.settings.get("model")
        if given is not None:
            return str(given)
        known = [model_of(self.pipelines, site).value for site in self.choice.sites]
        value = self.values.agree(known, self.site.call)
        if isinstance(value, Known):
            return str(value.value)
        self.unknown("model", value)
        return ""

    def _from_calls(self, field: Field) -> object | None:
        """Return what the calls give for a field; `None` leaves the pipeline's default."""
        if field.name in self.settings:
            return self.settings[field.name]
        value = self._agreed(field.argument, field.name)
        if field.name == "steps" and (value is None or (isinstance(value, Known) and value.value is None)):
            return self._stepped() or (None if value is None else self._checked(field, value))
        if isinstance(value, Missing) and self._flows(field.argument, value):
            return None
        return None if value is None else self._checked(field, value)

    def _flows(self, name: str, value: Missing) -> bool:
        """Note an argument that is made of data at run time; say whether it is one."""
        starred = isinstance(value.node, cst.Arg)
        source = self._source_of(value.node) if starred else self._source(name)
        owner = pipeline_class(self.pipeline_class)
        if starred:
            if source and owner is not None:
                names = [n for n in owner.call if n.endswith("prompt_embeds") and not n.startswith("negative")]
                self.inputs.update((n, Input(n, "embedding", source)) for n in names)
            return bool(source)
        if source or follows_data(name, value, owner):
            self.inputs[name] = Input(name, input_kind(name, owner) or "other", source)
            if not source:
                text = f"`{name}`, computed as `{self.values.short(value.node)}`, follows the data of each run"
                self._assume(name, value.node, text)
        return name in self.inputs

    def _agreed(self, keyword: str, name: str) -> Value | None:
        """Return the value that all calls give for a keyword; `None` where none gives any."""
        known: list[Value] = []
        absent = 0
        for call in self.choice.calls:
            given = argument(self.values, call, keyword, self.pipeline_class)
            if given is None:
                absent += 1
                continue
            known.append(given if isinstance(given, Missing) else self.values.of(given.value))
            place = given.node if isinstance(given, Missing) else given.value
            self.spans.setdefault(name, self.script.span(place))
        if not known:
            return None
        value = self.values.agree(known, self.choice.calls[0])
        if isinstance(value, Missing) and all(isinstance(one, Known) for one in known):
            self.differs = True
        if absent and isinstance(value, Known):
            value = Missing("only some of the calls give it", self.choice.calls[0])
            self.differs = True
        return value

    def _checked(self, field: Field, value: Value) -> object | None:
        if isinstance(value, Known) and value.value is None and field.name != "steps":
            return None
        if isinstance(value, Known):
            try:
                if isinstance(value.value, Symbol) and field.read is not OTHER["dtype"].read:
                    value = Known(library_constant(value.value.name), value.origin)
                if isinstance(value.value, str) and field.read in (count, number):
                    raise ValueError
                return field.read(value.value)
            except (ValueError, TypeError):
                value = Missing(f"`{self.values.short(value.origin)}` is not {field.kind}", value.origin)
        self.unknown(field.name, value)
        return None

    def _batch(self) -> int:
        if "batch" in self.settings:
            return int(str(self.settings["batch"]))
        images = self._from_calls(OTHER["batch"])
        sizes = []
        for call in self.choice.calls:
            prompt = argument(self.values, call, "prompt") or next(
                (a for a in call.args[before(call) :] if not a.keyword), None
            )
            value = None if prompt is None or isinstance(prompt, Missing) else self.values.of(prompt.value)
            sizes.append(len(value.value) if isinstance(value, Known) and isinstance(value.value, list | tuple) else 1)
            if isinstance(value, Missing) and isinstance(value.node, cst.ListComp | cst.List | cst.BinaryOperation):
                self.unknown("batch", Missing("the number of prompts is not known", value.node))
        if len(set(sizes)) > 1:
            self.unknown("batch", Missing("the calls differ in their number of prompts", self.choice.calls[0]))
        return int(str(images or 1)) * max(sizes, default=1)

    def _dtype(self) -> str:
        if "dtype" in self.settings:
            return str(self.settings["dtype"])
        value = dtype_of(self.pipelines, self.choice)
        return str((None if value is None else self._checked(OTHER["dtype"], value)) or "float32")

    def _components(self, base: PipelineDescription) -> tuple[ComponentDescription, ...]:
        owner = pipeline_class(self.pipeline_class)
        known = {part.name: part for part in base.components}
        parts = dict(known)
        for change in changes(self.pipelines, self.choice):
            declared = owner is not None and change.name in owner.components
            if change.name not in parts and change.name not in known and change.name != "scheduler" and not declared:
                continue
            self.spans[change.name] = self.script.span(change.place)
            expected = owner.components.get(change.name, ()) if owner is not None else ()
            made = self._made(change, parts.get(change.name), expected)
            if made is None:
                parts.pop(change.name, None)
            elif isinstance(made, ComponentDescription):
                parts[change.name] = replace(made, name=change.name)
        if "scheduler" in self.settings and "scheduler" in parts:
            class_name = str(self.settings["scheduler"]).rpartition(".")[2]
            check_scheduler(class_name)
            parts["scheduler"] = replace(parts["scheduler"], class_name=f"diffusers.{class_name}")
        return tuple(parts.values())

    def _made(
        self, change: Change, current: ComponentDescription | None, expected: Sequence[str]
    ) -> ComponentDescription | Missing | None:
        made = component(self.pipelines, change, current, expected)
        condition = (
            open_condition(self.values, change.place, [s.call for s in self.choice.sites])
            if not isinstance(made, Missing) and made != current
            else ""
        )
        if condition:
            made = Missing(f"it is changed only where `{condition}`", change.place)
        if not isinstance(made, Missing):
            return made
        if self.unknown(change.name, made) is None or current is not None:
            return current if current is not None else made
        given = str(self.settings[change.name])
        return ComponentDescription(change.name, given if "." in given else f"diffusers.{given}", {})

    def _adapters(self) -> tuple[Adapter, ...]:
        return Adapters(self.pipelines, self.choice, self.unknown).read()

    def _arguments(self) -> tuple[tuple[Input, ...], Mapping[str, JSON], tuple[Present, ...]]:
        """Return what the calls give beside the fields of the description."""
        owner = pipeline_class(self.pipeline_class)
        taken = {field.argument for field in self.fields} | {"num_images_per_prompt"}
        inputs = self.inputs
        arguments: dict[str, JSON] = {}
        callbacks: list[Present] = []
        for name in keywords(self.choice.calls, owner):
            if name in taken or is_runtime(name):
                continue
            value = self._agreed(name, name)
            if value is None or (isinstance(value, Known) and value.value is None):
                continue
            if isinstance(value, Missing) and isinstance(value.node, cst.Arg):
                if not self._flows(name, value):
                    self._hidden(value)
                continue
            kind = input_kind(name, owner)
            if CALLBACKS.match(name):
                callbacks.append(Present(name, "pipeline", {}, self.spans.get(name)))
            elif kind is not None:
                inputs[name] = Input(name, kind, self._source(name))
            elif not isinstance(value, Missing) or not self._flows(name, value):
                self._constant(name, value, arguments)
        return tuple(inputs.values()), arguments, tuple(callbacks)

    def _constant(self, name: str, value: Value, arguments: dict[str, JSON]) -> None:
        if name in self.settings:
            value = Known(self.settings[name], self.site.call)
        if isinstance(value, Known):
            try:
                arguments[name] = as_json(value.value)
            except TypeError:
                value = Missing(f"`{self.values.short(value.origin)}` is no plain value", value.origin)
        if isinstance(value, Missing) and self._hidden(value) is None:
            self.unknown(name, value)

    def _hidden(self, value: Missing) -> object | None:
        """Report a `**kwargs` that hides its arguments once, and not for each argument it may hold."""
        return self.unknown("arguments", value) or () if isinstance(value.node, cst.Arg) else None

    def _source(self, name: str) -> str:
        """Return the pipeline whose output flows into an argument."""
        for call in self.choice.calls:
            given = argument(self.values, call, name, self.pipeline_class)
            if given is None or isinstance(given, Missing):
                continue
            found = self._source_of(given.value)
            if found:
                return found
        return ""

    def _source_of(self, node: cst.CSTNode) -> str:
        for origin in origins(self.pipelines, node):
            sites = self.pipelines.calls.get(origin) or (
                self.pipelines.of(origin.func.value) if isinstance(origin.func, cst.Attribute) else ()
            )
            for site in sites:
                if site not in self.choice.sites and site in self.names:
                    return self.names[site]
        return ""

    def _stepped(self) -> int | None:
        """Return the number of steps where the calls list their timesteps."""
        for name in ("timesteps", "sigmas", "prior_timesteps"):
            value = self._agreed(name, name)
            if isinstance(value, Known) and isinstance(value.value, list | tuple) and value.value:
                return len(value.value)
        return None


def check_settings(settings: Settings, lifts: Sequence[Lift]) -> None:
    """Refuse settings that name nothing the script asks for."""
    asked = {name for lift in lifts for name in lift.asked}
    for name in settings:
        if name.rpartition(".")[2] not in asked:
            known = ", ".join([*SETTINGS, *sorted({u for lift in lifts for u in lift.asked if u not in SETTINGS})][:16])
            raise DiffoptError(f"nothing is called {name!r}", where="--set", hint=f"there is {known}")


__all__ = ["Lift", "check_settings", "read_settings"]
