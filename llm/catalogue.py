"""Describe the passes to a language model: derived from the registry, nothing listed twice."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from pydantic import JsonValue
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.identity import context, parse_module, print_module
from diffopt.llm.plans import plan_schema
from diffopt.passes.base import DiffusionPass, Option, Value, options, registry

_HEADING = re.compile(r"^\s*(What it does|When it helps|Refuses when|What it costs|References): ", re.MULTILINE)
_SHOWN = 24


@dataclass(frozen=True)
class PassNote:
    """What a model needs to know of one pass on one pipeline.

    Args:
        notes: the docstring's sections by heading, references left out.
        legal: the distinct values of each option over the instances legal on this pipeline alone.
        count: how many such instances there are.
        refusal: why there are none, or "".
    """

    name: str
    family: str
    tier: str
    summary: str
    notes: Mapping[str, str]
    options: tuple[Option, ...]
    legal: Mapping[str, tuple[Value, ...]]
    count: int
    refusal: str
    examples: tuple[str, ...]


def describe(module: ModuleOp, passes: Mapping[str, type[DiffusionPass]] | None = None) -> tuple[PassNote, ...]:
    """Describe passes (all registered ones by default) as they stand to this module; pure."""
    found = registry() if passes is None else passes
    return tuple(_note(pass_type, module) for pass_type in found.values())


def catalogue_for(module: ModuleOp) -> str:
    """Print all registered passes as they stand to this module; the work of looking is done once a module."""
    return _catalogue(print_module(module))


@lru_cache(maxsize=8)
def _catalogue(text: str) -> str:
    return catalogue_text(describe(parse_module(text)))


def catalogue_text(notes: Iterable[PassNote]) -> str:
    """Print the notes for a prompt."""
    return "\n\n".join(_print(note) for note in notes)


def tool_description(module: ModuleOp, passes: Mapping[str, type[DiffusionPass]] | None = None) -> str:
    """Return all that an agent needs to drive diffopt on this pipeline, as JSON text."""
    found = registry() if passes is None else passes
    notes: list[JsonValue] = [_json(note) for note in describe(module, found)]
    description: dict[str, JsonValue] = {
        "format": 1,
        "tool": "diffopt",
        "summary": "Optimizing compiler for diffusion pipelines: applies ordered passes and measures the result.",
        "trace": "name{option=value option=value},name: passes in order of application; options default",
        "commands": {
            "diffopt lift SOURCE": "print the intermediate representation",
            'diffopt opt IR --passes "TRACE"': "apply a trace, or say which rule it breaks",
            'diffopt compile SOURCE --passes "TRACE" --json': "measure a trace and write the artifact",
            "diffopt compile SOURCE --json": "search for the best trace",
        },
        "passes": notes,
        "plan_schema": plan_schema(found),
    }
    return json.dumps(description, indent=2, ensure_ascii=False)


def _note(pass_type: type[DiffusionPass], module: ModuleOp) -> PassNote:
    instances = pass_type.schedule_space(context(), module)
    summary, _, rest = (pass_type.__doc__ or "").strip().partition("\n")
    declared = options(pass_type)
    return PassNote(
        name=pass_type.name,
        family=pass_type.family.value,
        tier=pass_type.tier.value,
        summary=summary.strip(),
        notes=_sections(rest),
        options=declared,
        legal={option.name: _values(option, instances) for option in declared},
        count=len(instances),
        refusal="" if instances else _why_not(pass_type, module),
        examples=tuple(
            f"{example.trace} is refused: {example.refusal}" if example.refusal else example.trace
            for example in pass_type.examples
        ),
    )


def _sections(text: str) -> dict[str, str]:
    parts = _HEADING.split(text)
    sections = {heading: " ".join(body.split()) for heading, body in zip(parts[1::2], parts[2::2], strict=True)}
    sections.pop("References", None)
    return sections


def _values(option: Option, instances: Iterable[DiffusionPass]) -> tuple[Value, ...]:
    return tuple(dict.fromkeys(getattr(instance, option.name) for instance in instances))


def _why_not(pass_type: type[DiffusionPass], module: ModuleOp) -> str:
    for instance in pass_type.space(module):
        refusal = instance.refusal(module)
        if refusal is not None:
            return str(refusal)
    return "nothing to do on this pipeline"


def _print(note: PassNote) -> str:
    lines = [f"{note.name} (family {note.family}, tier {note.tier}): {note.summary}"]
    lines += [f"  {heading}: {text}" for heading, text in note.notes.items()]
    lines += [f"  option {_option(option)}" for option in note.options]
    if note.refusal:
        lines.append(f"  not for this pipeline: {note.refusal}")
    else:
        legal = (f"{name} {_shown(values)}" for name, values in note.legal.items())
        lines.append(f"  legal here, {note.count} settings: {'; '.join(legal) or 'as it is'}")
    lines += [f"  example: {example}" for example in note.examples]
    return "\n".join(lines)


def _option(option: Option) -> str:
    choices = f", one of {', '.join(map(_text, option.choices))}" if option.choices else ""
    return f"{option.name}: {option.type} = {_text(option.default)}{choices}"


def _shown(values: tuple[Value, ...]) -> str:
    if len(values) <= _SHOWN:
        return " | ".join(map(_text, values))
    return " | ".join(_text(values[i * (len(values) - 1) // (_SHOWN - 1)]) for i in range(_SHOWN))


def _text(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False)


def _json(note: PassNote) -> dict[str, JsonValue]:
    described: list[JsonValue] = [
        {"name": o.name, "type": o.type, "default": o.default, "choices": list(o.choices)} for o in note.options
    ]
    return {
        "name": note.name,
        "family": note.family,
        "tier": note.tier,
        "summary": note.summary,
        "notes": dict(note.notes),
        "options": described,
        "legal": {name: list(values) for name, values in note.legal.items()},
        "settings": note.count,
        "refusal": note.refusal,
        "examples": list(note.examples),
    }
