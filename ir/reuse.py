"""Static schedules of reuse: which steps compute what anew, and what the steps between take over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from xdsl.dialects.builtin import ArrayAttr, IntegerAttr, i64
from xdsl.ir import Attribute
from xdsl.parser import Parser


@dataclass(frozen=True)
class Reuse:
    """What the calls of a denoiser take over from its last full call.

    Args:
        full: steps that run the whole network.
        branch: of a UNet, up layers besides the last that run at every step (DeepCache, arXiv 2312.00858).
        blocks: of a transformer, how many first and last blocks run at every step; `None` with `branch` `None` means
            that only what cross-attentions give out is taken over (T-GATE, arXiv 2404.02747).
        order: derivatives that carry on what is taken over (TaylorSeer, arXiv 2503.06923).
    """

    full: tuple[int, ...]
    branch: int | None = None
    blocks: tuple[int, int] | None = None
    order: int = 0

    def __str__(self) -> str:
        what = f"branch {self.branch}" if self.branch is not None else "cross_attention"
        if self.blocks is not None:
            what = f"blocks {self.blocks[0]} {self.blocks[1]}"
        return f"full at {list(self.full)} {what}{f' order {self.order}' if self.order else ''}"

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        """Read what `str` printed, behind the word `full`."""
        parser.parse_keyword("at")
        full = tuple(parser.parse_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer))
        branch, blocks = None, None
        if parser.parse_optional_keyword("blocks"):
            blocks = (parser.parse_integer(), parser.parse_integer())
        elif not parser.parse_optional_keyword("cross_attention"):
            parser.parse_keyword("branch")
            branch = parser.parse_integer()
        return cls(full, branch, blocks, parser.parse_integer() if parser.parse_optional_keyword("order") else 0)

    def to_properties(self) -> dict[str, Attribute]:
        """Return the properties of an operation that hold this."""
        found: dict[str, Attribute] = {"full": integers(self.full)}
        if self.branch is not None:
            found["branch"] = IntegerAttr(self.branch, i64)
        if self.blocks is not None:
            found["blocks"] = integers(self.blocks)
        return found | ({"order": IntegerAttr(self.order, i64)} if self.order else {})

    @classmethod
    def from_properties(cls, properties: Mapping[str, Attribute]) -> Self | None:
        """Read what `to_properties` wrote; `None` where nothing is reused."""
        full, blocks = (values_of(properties.get(key)) for key in ("full", "blocks"))
        if full is None:
            return None
        branch, order = (_value_of(properties.get(key)) for key in ("branch", "order"))
        pair = (blocks[0], blocks[1]) if blocks is not None and len(blocks) == 2 else None
        return cls(full, branch, pair, order or 0)


def integers(values: Sequence[int]) -> ArrayAttr[IntegerAttr]:
    """Return whole numbers as an attribute."""
    return ArrayAttr([IntegerAttr(value, i64) for value in values])


def values_of(attribute: Attribute | None) -> tuple[int, ...] | None:
    """Return the numbers of an attribute that `integers` made."""
    if not isinstance(attribute, ArrayAttr):
        return None
    return tuple(value for item in attribute.data if (value := _value_of(item)) is not None)


def _value_of(attribute: Attribute | None) -> int | None:
    return attribute.value.data if isinstance(attribute, IntegerAttr) else None
