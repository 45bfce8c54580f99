"""A pass as a language model writes it: what it says of itself, and the text of a text-to-text program."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, Field, JsonValue

from diffopt.passes.pipeline import Trace

Part = Literal["imports", "constants", "functions", "load"]
"""What of an emitted file a pass may touch: import lines, other statements, added functions, the body of `load`."""

FUNCTION = "transform"
LONGEST = 20_000


class GeneratedPass(BaseModel):
    """A new pass: `transform(source: str) -> str` and its declarations.

    pattern: a text without which a file is left alone, byte for byte.
    touches: the parts of the file that change.
    idempotent: doing it twice is doing it once.
    tier: what it promises of the images; measuring decides.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{2,39}$")]
    summary: Annotated[str, Field(max_length=200)]
    tier: Literal["exact", "near", "traded"]
    pattern: Annotated[str, Field(min_length=3, max_length=200)]
    touches: Annotated[list[Part], Field(min_length=1)]
    idempotent: bool = True
    reason: Annotated[str, Field(max_length=1000)] = ""
    code: Annotated[str, Field(max_length=LONGEST)]

    @property
    def id(self) -> str:
        """Identity of the code, as the IR names it."""
        return f"sha256:{hashlib.sha256(self.code.encode()).hexdigest()}"

    @property
    def trace(self) -> str:
        """The pass as text, alone."""
        return str(Trace.parse(f'rewrite{{code="{self.id}"}}'))


def pass_schema() -> dict[str, JsonValue]:
    """Return the JSON schema of a pass, closed and with every property required, as strict endpoints want it."""
    text: dict[str, JsonValue] = {"type": "string"}
    part: dict[str, JsonValue] = {"type": "string", "enum": list(get_args(Part))}
    properties: dict[str, JsonValue] = {
        "name": text,
        "summary": text,
        "tier": {"type": "string", "enum": ["exact", "near", "traded"]},
        "pattern": text,
        "touches": {"type": "array", "items": part},
        "idempotent": {"type": "boolean"},
        "reason": text,
        "code": text,
    }
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
