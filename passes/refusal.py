"""A pass's normal *no*."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """Why a pass does not apply: a sentence, the place, and the rule broken. A normal answer, not an error."""

    reason: str
    where: str = ""
    rule: str = ""

    def __str__(self) -> str:
        rule = f" [{self.rule}]" if self.rule else ""
        return f"{self.where}: {self.reason}{rule}" if self.where else f"{self.reason}{rule}"
