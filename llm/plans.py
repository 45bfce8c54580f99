"""Plans as the model writes them, and the typed construction that turns each into a trace or into a diagnostic."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, Field, JsonValue
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import module_hash
from diffopt.llm.answer import one_line
from diffopt.passes.base import DiffusionPass, Option, Refusal, options
from diffopt.passes.pipeline import Trace, build_pass, key

_LONGEST = 24
_LIMIT = 10**9
_TYPES = {"int": "integer", "float": "number", "bool": "boolean", "str": "string"}

_Value = (
    bool
    | Annotated[int, Field(strict=True, ge=-_LIMIT, le=_LIMIT)]
    | Annotated[float, Field(strict=True, ge=-_LIMIT, le=_LIMIT, allow_inf_nan=False)]
    | Annotated[str, Field(max_length=100)]
)


class PlannedPass(BaseModel):
    """A pass by name, with the options that differ from their defaults."""

    name: str = Field(max_length=100)
    options: dict[str, _Value] = {}

    def __str__(self) -> str:
        given = " ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.name}{{{given}}}" if given else self.name


class Plan(BaseModel):
    """Passes in order, and why."""

    reason: str = ""
    passes: list[PlannedPass]

    def __str__(self) -> str:
        return one_line(",".join(map(str, self.passes))) or "(no passes)"


class Range(BaseModel):
    """Where the useful values of a numeric option lie, both ends included."""

    option: str = Field(max_length=100)
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)


class Hint(BaseModel):
    """How much a pass is worth trying (1 as any, 0 hardly), and with which values: steers mutation, forbids nothing."""

    name: str = Field(max_length=100)
    weight: float = Field(1.0, ge=0.0, le=4.0)
    ranges: list[Range] = []


class Plans(BaseModel):
    """The whole answer."""

    plans: list[Plan]
    hints: list[Hint] = []


def build(plan: Plan, module: ModuleOp, seen: Mapping[str, str]) -> tuple[Trace, str] | str:
    """Turn a plan into a trace and its key, or into the diagnostic that goes back to the model.

    Args:
        seen: key of each program that is known already, and what it is.
    """
    if len(plan.passes) > _LONGEST:
        return f"{len(plan.passes)} passes are more than {_LONGEST}"
    try:
        trace = Trace(tuple(build_pass(planned.name, dict(planned.options)) for planned in plan.passes))
        if Trace.parse(str(trace)) != trace:
            return "an option value does not survive being written as text"
    except DiffoptError as error:
        return one_line(str(error))
    name = key(trace, module)
    if isinstance(name, Refusal):
        return one_line(str(name))
    if name == module_hash(module):
        return "the passes leave the program as it is"
    return f"the same program as {seen[name]}" if name in seen else (trace, name)


def wrong(hint: Hint, passes: Mapping[str, type[DiffusionPass]]) -> str:
    """Return why a hint says nothing, or ""."""
    found = passes.get(hint.name)
    if found is None:
        return f"unknown pass {one_line(hint.name, 100)!r}"
    numeric = {option.name for option in options(found) if option.type in ("int", "float")}
    for given in hint.ranges:
        if given.option not in numeric:
            return f"{hint.name} has no numeric option {one_line(given.option, 100)!r}"
        if given.low > given.high:
            return f"{hint.name}: {given.option} from {given.low:g} to {given.high:g} is no range"
    return ""


def plan_schema(passes: Mapping[str, type[DiffusionPass]]) -> dict[str, JsonValue]:
    """Return the JSON schema of an answer, derived from the passes.

    It keeps to what strict structured output takes everywhere: closed objects with every property required.
    """
    steps: list[JsonValue] = [
        _object({"name": {"type": "string", "enum": [name]}, "options": _options_schema(passes[name])})
        for name in passes
    ]
    plan = _object({"reason": {"type": "string"}, "passes": {"type": "array", "items": {"anyOf": steps}}})
    number: dict[str, JsonValue] = {"type": "number"}
    ranges = _object({"option": {"type": "string"}, "low": number, "high": number})
    name: dict[str, JsonValue] = {"type": "string", "enum": list(passes)}
    hint = _object({"name": name, "weight": number, "ranges": {"type": "array", "items": ranges}})
    return _object({"plans": {"type": "array", "items": plan}, "hints": {"type": "array", "items": hint}})


def _options_schema(pass_type: type[DiffusionPass]) -> dict[str, JsonValue]:
    return _object({option.name: _option_schema(option) for option in options(pass_type)})


def _option_schema(option: Option) -> dict[str, JsonValue]:
    schema: dict[str, JsonValue] = {"type": _TYPES[option.type]}
    if option.choices:
        schema["enum"] = list(option.choices)
    return schema


def _object(properties: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
