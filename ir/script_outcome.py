"""What a script would be with its edits made, read off it as any script is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import PipelineDescription
from diffopt.ir.dialect import scheduler_of
from diffopt.ir.errors import DiffoptError
from diffopt.ir.script_choice import Choice
from diffopt.ir.script_lift import Lift
from diffopt.ir.script_lines import Edit, apply_edits, moved
from diffopt.ir.script_pipelines import Pipelines
from diffopt.ir.script_text import Script, join, parse_part

FIELDS = {"num_inference_steps": "steps", "guidance_scale": "guidance"}


def check_outcome(
    pipelines: Pipelines, choice: Choice, edits: Sequence[Edit], module: ModuleOp, wanted: Mapping[str, object]
) -> None:
    """Refuse edits after which the script would still not have the scheduler, or make the calls, of the module.

    Args:
        wanted: arguments that all calls were given.

    Raises:
        DiffoptError: it would not.
    """
    found = _described(pipelines, choice, edits)
    if found is None:
        return
    unknown = {item.name for item in found.unknowns}
    where = pipelines.script.where(choice.sites[0].call)
    for keyword, value in wanted.items():
        field = FIELDS.get(keyword, "")
        if field and field not in unknown and getattr(found, field) != value:
            said = f"{keyword}={getattr(found, field)}, not {value}"
            raise DiffoptError(f"with the edits made, the script would have {said}", where=where)
    scheduler = scheduler_of(module)
    overrides, name = scheduler.values.get("overrides"), scheduler.sym_name.data
    part = found.component(name)
    if not isinstance(overrides, dict) or name in unknown or part is None:
        return
    wrong = [key for key, value in overrides.items() if part.config.get(key, value) != value]
    if part.class_name.rpartition(".")[2] != scheduler.class_name.data.rpartition(".")[2] or wrong:
        raise DiffoptError(
            f"with the edits made, the {name} would be {part.class_name.rpartition('.')[2]}"
            f"{''.join(f' with {key}={part.config[key]}' for key in wrong)}: the script sets it again",
            where=where,
            hint="set it where the pipeline is built",
        )


def _described(pipelines: Pipelines, choice: Choice, edits: Sequence[Edit]) -> PipelineDescription | None:
    """Lift the pipeline again with the edits made; `None` where it cannot be found again."""
    after = Pipelines(_edited(pipelines.script, edits))
    before = list(pipelines.sites.values()), list(pipelines.calls)
    sites, calls = list(after.sites.values()), list(after.calls)
    if len(sites) != len(before[0]) or len(calls) != len(before[1]):
        return None
    same = Choice(
        tuple(sites[before[0].index(site)] for site in choice.sites),
        tuple(calls[before[1].index(call)] for call in choice.calls),
    )
    try:
        return Lift(after, same, {}, {}).description()
    except DiffoptError:
        return None  # it needs settings that were given with --set


def _edited(script: Script, edits: Sequence[Edit]) -> Script:
    found = []
    ends = [part.base - 1 for part in script.parts[1:]] + [len(script.text)]
    for part, end in zip(script.parts, ends, strict=True):
        own = [edit for edit in edits if part.base <= edit.start <= end]
        text = apply_edits(part.text, [moved(replace(edit, end=min(edit.end, end)), -part.base) for edit in own])
        made, places = parse_part(text, part.path)
        found.append((replace(made, name=part.name, package=part.package), places))
    return join(found)
