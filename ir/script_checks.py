"""What a setting may not be: a size or a class that the pipeline or the installed diffusers would refuse."""

from __future__ import annotations

from collections.abc import Mapping

from diffopt.ir.errors import DiffoptError
from diffopt.ir.pipeline_classes import PipelineClass
from diffopt.ir.script_library import is_exported, nearest_export


def check_size(settings: Mapping[str, object], owner: PipelineClass | None) -> None:
    """Refuse a given size that the class itself would refuse."""
    for name in ("height", "width"):
        size = settings.get(name)
        if owner is not None and owner.multiple and isinstance(size, int) and size % owner.multiple:
            near = max(round(size / owner.multiple), 1) * owner.multiple
            raise DiffoptError(
                f"{name}={size}: {owner.name} takes multiples of {owner.multiple}",
                where="--set",
                hint=f"the nearest is {near}",
            )


def check_scheduler(class_name: str) -> None:
    """Refuse a scheduler that the installed diffusers lacks."""
    if is_exported(class_name):
        return
    near = nearest_export(class_name)
    raise DiffoptError(
        f"scheduler={class_name}: the installed diffusers has no such class",
        where="--set",
        hint=f"the nearest is {near}" if near else "check the name",
    )
