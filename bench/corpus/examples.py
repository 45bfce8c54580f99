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
    """

    name: str
    place: str
    pipelines: int
    unknowns: tuple[str, ...] = ()
    reason: str = ""

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
        yield Row(name, f"{place}:{line}", len(found), unknowns=tuple(unknowns))


def table(found: Sequence[Row]) -> str:
    """Return the table that `make corpus` prints."""
    lines = [f"{'class':52} {'lifted':9} {'pipelines':>9}  what is left"]
    for row in found:
        state = "refused" if row.reason else "whole" if row.complete else "in part"
        lines.append(f"{row.name:52} {state:9} {row.pipelines:9}  {row.reason or '; '.join(row.unknowns)}".rstrip())
    count = Counter("refused" if row.reason else "whole" if row.complete else "in part" for row in found)
    share = 100 * count["whole"] / max(1, len(found))
    lines.append(
        f"{len(found)} code blocks: {count['whole']} lift whole ({share:.1f} %), {count['in part']} in part, "
        f"{count['refused']} refused"
    )
    return "\n".join(lines)
