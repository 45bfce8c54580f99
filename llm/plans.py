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


class Plans(BaseModel):
    """The whole answer."""

    plans: list[Plan]


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


def plan_schema(passes: Mapping[str, type[DiffusionPass]]) -> dict[str, JsonValue]:
    """Return the JSON schema of an answer, derived from the passes.

    It keeps to what strict structured output takes everywhere: closed objects with every property required.
    """
    steps: list[JsonValue] = [
        _object({"name": {"type": "string", "enum": [name]}, "options": _options_schema(passes[name])})
        for name in passes
    ]
    plan = _object({"reason": {"type": "string"}, "passes": {"type": "array", "items": {"anyOf": steps}}})
    return _object({"plans": {"type": "array", "items": plan}})


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
