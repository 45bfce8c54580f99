"""Read a chat completion: what the model said, why it stopped, what it used. Nothing here trusts the endpoint."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from diffopt.llm.budget import Usage

Status: TypeAlias = Literal["ok", "refused", "length", "invalid", "budget", "rejected", "unavailable"]
"""How a question ended.

ok: a value that fits the model class. refused: the model declined, or a content filter did. length: cut off at the
token limit. invalid: not the JSON asked for, also after the repair turn. budget: not asked. rejected: the endpoint
does not accept the key, the model name or the request. unavailable: no usable response after the SDK's retries.
"""

_Shape = TypeVar("_Shape", bound=BaseModel)
_FENCE = re.compile(r"```[A-Za-z]*[ \t]*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Completion:
    """The first choice of a chat completion."""

    status: Status  # "ok" says only that there is a whole text
    text: str
    message: str  # why it is not ok
    usage: Usage | None  # None when the endpoint does not say


def read_completion(body: JsonValue) -> Completion:
    """Read the body of a successful response."""
    usage = _usage(body)
    choice = _item(_field(body, "choices"))
    message = _field(choice, "message")
    text = _text(_field(message, "content"))
    refusal, reason = _field(message, "refusal"), _field(choice, "finish_reason")
    if isinstance(refusal, str) and refusal:
        return Completion("refused", text, f"the model refuses: {one_line(refusal)}", usage)
    if reason == "content_filter":
        return Completion("refused", text, "the endpoint's content filter stopped the answer", usage)
    if reason == "length":
        return Completion("length", text, "the answer was cut off at the token limit", usage)
    if not text.strip():
        return Completion("invalid", text, "the answer holds no text", usage)
    return Completion("ok", text, "", usage)


def read_json(text: str, shape: type[_Shape]) -> _Shape | str:
    """Find the JSON object in `text` and validate it.

    Returns:
        The value, or the lines that say what is wrong with it.
    """
    problem = "the answer holds no JSON object"
    for value in _objects(text):
        try:
            return shape.model_validate(value)
        except ValidationError as error:
            problem = _problem(error)
    return problem


def one_line(text: str, limit: int = 300) -> str:
    """Return `text` as one printable line of at most `limit` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def parse_json(text: str) -> JsonValue:
    """Parse strict JSON; `NaN` and `Infinity` are errors.

    Raises:
        ValueError: the text is not JSON.
    """
    value: JsonValue = json.loads(text, parse_constant=_refuse_constant)
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _objects(text: str) -> Iterator[dict[str, JsonValue]]:
    """Yield the objects a text may mean, likeliest first: all of it, a fenced block, from a brace on."""
    spoken = text.rpartition("</think>")[2]
    brace = spoken.find("{")
    parts = [spoken, *reversed(_FENCE.findall(spoken)), spoken[brace : spoken.rfind("}") + 1] if brace >= 0 else ""]
    for part in dict.fromkeys(part.strip() for part in parts):
        try:
            value = parse_json(part)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield value


def _problem(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False)
    lines = [f"{'.'.join(map(str, e['loc'])) or 'the object'}: {one_line(e['msg'])}" for e in found[:8]]
    return "\n".join(lines if len(found) <= 8 else [*lines, f"and {len(found) - 8} more"])


def _usage(body: JsonValue) -> Usage | None:
    prompt = _field(_field(body, "usage"), "prompt_tokens")
    completion = _field(_field(body, "usage"), "completion_tokens")
    if not (_is_count(prompt) and _is_count(completion)):
        return None
    return Usage(int(str(prompt)), int(str(completion)))


def _is_count(value: JsonValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _field(value: JsonValue, name: str) -> JsonValue:
    return value.get(name) if isinstance(value, dict) else None


def _item(value: JsonValue) -> JsonValue:
    return value[0] if isinstance(value, list) and value else None


def _text(content: JsonValue) -> str:
    """Return the text of a message, which some endpoints send in parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(text for part in parts if isinstance(text := _field(part, "text"), str))
