"""Print which pipeline classes of the installed diffusers lift: `python -m diffopt.bench.corpus.classes`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from diffopt.ir.description import Input, InputKind, PipelineDescription, build_module
from diffopt.ir.dialect import loops, only_plain, stages
from diffopt.ir.errors import DiffoptError
from diffopt.ir.pipeline_classes import pipeline_class, pipeline_classes
from diffopt.ir.roles import medium
from diffopt.ir.source_directory import describe_hub
from diffopt.ir.verify import Stage, verify

KINDS: tuple[tuple[str, InputKind], ...] = (
    ("image", "image"),
    ("control_image", "control"),
    ("mask_image", "mask"),
    ("video", "video"),
    ("audio", "audio"),
    ("class_labels", "other"),
)
"""Arguments of a call that are given at run time, and of which kind."""


@dataclass(frozen=True)
class Row:
    """What became of a class: how its module looks, or why there is none."""

    name: str
    lifted: bool
    said: str


def rows() -> Iterator[Row]:
    """Yield a row for each class, from its own signature alone."""
    for name in pipeline_classes():
        try:
            described = described_class(name)
            module = build_module(described)
        except DiffoptError as error:
            yield Row(name, False, error.message)
            continue
        broken = verify(module, Stage.SCHEDULED)
        if broken:
            yield Row(name, False, broken[0].message)
            continue
        found = loops(module)
        guide = next((loop.guide for loop in found if loop.guide is not None), None)
        said = [medium(described), f"{len(stages(module))} stage", f"{len(found)} loop"]
        said.append("no guidance" if guide is None else "guided in turn" if guide.in_turn else "guided in one batch")
        if any(predict.scale is not None for loop in found for predict in loop.predicts):
            said.append("distilled scale")
        said.append(only_plain(module) or "plain")
        yield Row(name, True, ", ".join(said))


def described_class(name: str) -> PipelineDescription:
    """Describe a class from its signature, given every input that its call takes."""
    known = pipeline_class(name)
    call = known.call if known is not None else {}
    inputs = tuple(Input(key, kind) for key, kind in KINDS if key in call)
    described = describe_hub("nobody/nothing", name)
    # A class without a constant default for its steps is given some; a script would give its own.
    unknowns = tuple(unknown for unknown in described.unknowns if unknown.name != "steps")
    return replace(described, inputs=inputs, unknowns=unknowns)


def main() -> None:
    """Print the table and its sum."""
    table = list(rows())
    width = max(len(row.name) for row in table)
    for row in table:
        print(f"{row.name:{width}}  {'lifts' if row.lifted else 'no   '}  {row.said}")
    print(f"{sum(row.lifted for row in table)} of {len(table)} pipeline classes lift")


if __name__ == "__main__":
    main()
