"""Lift a script: the pipelines it builds and the calls it makes, read off its source without running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from diffopt.ir.description import PipelineDescription
from diffopt.ir.errors import DiffoptError
from diffopt.ir.script_choice import Choice, choose, labels, pipelines_called
from diffopt.ir.script_lift import Lift, check_settings
from diffopt.ir.script_pipelines import Pipelines
from diffopt.ir.script_project import open_script, open_text
from diffopt.ir.script_settings import read_settings
from diffopt.ir.script_text import Script


def describe_script(path: str | Path, *, settings: Mapping[str, str] | None = None) -> PipelineDescription:
    """Describe the pipeline that a script builds and the call it makes.

    Args:
        path: a `.py` file or a notebook; it is read, never run, and so are the files of its project it imports.
        settings: values for what the source does not say, which go before the source; see `docs/lifting.md`.

    Raises:
        DiffoptError: the file cannot be read, or builds no pipeline or several.
    """
    return _describe(open_script(path), path, settings or {}, one=True)[0]


def describe_project(path: str | Path, *, settings: Mapping[str, str] | None = None) -> tuple[PipelineDescription, ...]:
    """Describe all pipelines that a script calls, in the order of their first calls.

    Raises:
        DiffoptError: the file cannot be read, or builds no pipeline.
    """
    return _describe(open_script(path), path, settings or {}, one=False)


def describe_text(text: str, path: str | Path, *, settings: Mapping[str, str] | None = None) -> PipelineDescription:
    """Describe the pipeline in a script's text; `path` places it."""
    return _describe(open_text(text, path), path, settings or {}, one=True)[0]


def describe_texts(
    text: str, path: str | Path, *, settings: Mapping[str, str] | None = None
) -> tuple[PipelineDescription, ...]:
    """Describe all pipelines that are called in a script's text; `path` places it."""
    return _describe(open_text(text, path), path, settings or {}, one=False)


def _describe(
    script: Script, path: str | Path, given: Mapping[str, str], *, one: bool
) -> tuple[PipelineDescription, ...]:
    settings = read_settings(given)
    try:
        pipelines = Pipelines(script)
        every = pipelines_called(pipelines)
        name = str(settings.get("pipeline", ""))
        chosen = [choose(pipelines, name)] if one or name else every
        names = {site: label for choice, label in zip(every, labels(every), strict=True) for site in choice.sites}
        lifts: list[Lift] = []
        described: list[PipelineDescription] = []
        for choice in chosen:
            lift = Lift(pipelines, choice, settings, names)
            lifts.append(lift)
            found = [lift.description()]
            if lift.differs and not one:
                found = [Lift(pipelines, part, settings, names).description() for part in _by_call(choice)]
            label = names[choice.sites[0]] if len(chosen) > 1 else choice.name
            described += [
                replace(item, name=label if i == 0 else f"{label}_{i + 1}") for i, item in enumerate(_distinct(found))
            ]
        check_settings(settings, lifts)
    except RecursionError:
        raise DiffoptError("too involved to be read", where=str(path)) from None
    return tuple(described)


def _by_call(choice: Choice) -> list[Choice]:
    """Take the calls of one pipeline apart, where they differ in what they ask for."""
    return [replace(choice, calls=(call,)) for call in choice.calls]


def _distinct(described: list[PipelineDescription]) -> list[PipelineDescription]:
    """Leave out descriptions that differ from an earlier one only in their places."""
    found: dict[str, PipelineDescription] = {}
    for item in described:
        found.setdefault(repr(replace(item, spans={}, assumptions=())), item)
    return list(found.values())
