"""What becomes of the examples in diffusers' own docstrings: lifted whole, in part, or refused with a place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from diffopt.ir.errors import DiffoptError
from diffopt.ir.pipeline_examples import example_docs
from diffopt.ir.source_script import describe_texts


@dataclass(frozen=True)
class Row:
    """One code block.

    Args:
        pipelines: how many it builds and calls.
        unknowns: what stays unknown in it, with the line.
        reason: of the refusal; empty for one that lifts.
        assumptions: what was read though the block does not prove it.
    """

    name: str
    place: str
    pipelines: int
    unknowns: tuple[str, ...] = ()
    reason: str = ""
    assumptions: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all of its pipelines lift without an unknown."""
        return not self.reason and not self.unknowns


def rows() -> Iterator[Row]:
    """Yield a row for each code block of the installed diffusers' pipeline docstrings."""
    for name, file, line, code in example_docs():
        place = f"diffusers/{file}"
        # empty lines in front, so that what is said names the line in diffusers' own file
        text = "\n" * (line - 1) + code
        try:
            found = describe_texts(text, place)
        except DiffoptError as error:
            yield Row(name, f"{place}:{line}", 0, reason=str(error))
            continue
        unknowns = [
            f"{u.name} ({f'line {u.span.line}' if u.span else 'of the class'}: {u.reason})"
            for d in found
            for u in d.unknowns
        ]
        assumed = tuple(dict.fromkeys(a.text for d in found for a in d.assumptions))
        yield Row(name, f"{place}:{line}", len(found), unknowns=tuple(unknowns), assumptions=assumed)


def table(found: Sequence[Row]) -> str:
    """Return the table that `make corpus` prints."""
    lines = [f"{'class':52} {'lifted':27} {'pipelines':>9}  what is left, or assumed"]
    for row in found:
        state, assumed = _state(row), len(row.assumptions)
        if assumed and state == "whole":
            state = f"whole, with {assumed} assumption{'s' if assumed > 1 else ''}"
        said = row.reason or "; ".join((*row.unknowns, *(f"assumed: {text}" for text in row.assumptions)))
        lines.append(f"{row.name:52} {state:27} {row.pipelines:9}  {said}".rstrip())
    count = Counter(map(_state, found))
    proven = sum(row.complete and not row.assumptions for row in found)
    share, sure = (100 * number / max(1, len(found)) for number in (count["whole"], proven))
    lines.append(
        f"{len(found)} code blocks: {count['whole']} lift whole ({share:.1f} %), {proven} of them without any "
        f"assumption ({sure:.1f} %), {count['in part']} in part, {count['refused']} refused"
    )
    return "\n".join(lines)


def _state(row: Row) -> str:
    return "refused" if row.reason else "whole" if row.complete else "in part"
