"""The pipeline of a script that is to be optimized: the one that is called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import libcst as cst

from diffopt.ir.errors import DiffoptError
from diffopt.ir.script_pipelines import Pipelines, Site


@dataclass(frozen=True, eq=False)
class Choice:
    """One pipeline: where it may be built (several places for branches), and where it is called."""

    sites: tuple[Site, ...]
    calls: tuple[cst.Call, ...]

    @property
    def name(self) -> str:
        """What the script calls it, without what holds it."""
        name = self.sites[0].names[0].rpartition(".")[2]
        return "pipeline" if name.isdigit() or ":" in name else name


def choose(pipelines: Pipelines, name: str = "") -> Choice:
    """Return the pipeline to work on.

    Args:
        name: what the user calls it; empty to take the only one that is called.

    Raises:
        DiffoptError: there is none, several, or none of that name.
    """
    script = pipelines.script
    if not pipelines.sites:
        raise DiffoptError(
            "no diffusers pipeline is built in this script",
            where=script.path,
            hint="diffopt looks for a pipeline class of diffusers and `from_pretrained`",
        )
    groups = _groups(pipelines)
    candidates = pipelines_called(pipelines)
    if name:
        candidates = [g for g in groups if any(name in site.names for site in g.sites)]
        candidates = [g for g in candidates if g.calls] or candidates
        if not candidates:
            raise DiffoptError(f"no pipeline {name!r}", where=script.path, hint=f"there is {_list(groups)}")
    if len(candidates) > 1:
        raise DiffoptError(
            f"several pipelines: {_list(candidates)}",
            where=script.where(candidates[1].sites[0].call),
            hint=f"choose one with --set pipeline={labels(candidates)[0]}",
        )
    return candidates[0]


def pipelines_called(pipelines: Pipelines) -> list[Choice]:
    """Return the pipelines that are called, in the order of their first calls; where none is, all that are built.

    Raises:
        DiffoptError: the script builds no pipeline.
    """
    if not pipelines.sites:
        raise DiffoptError(
            "no diffusers pipeline is built in this script",
            where=f"{pipelines.script.path}:1",
            hint="diffopt looks for a pipeline class of diffusers and `from_pretrained`",
        )
    groups = _groups(pipelines)
    called = [group for group in groups if group.calls]
    start = pipelines.script.start
    return sorted(called, key=lambda group: start(group.calls[0])) if called else groups


def _groups(pipelines: Pipelines) -> list[Choice]:
    """Put sites together that one call may mean: branches of an `if` that build the same thing in two ways."""
    groups: list[set[Site]] = []
    for found in (*pipelines.calls.values(), *(frozenset([site]) for site in pipelines.sites.values())):
        touching = [group for group in groups if group & found]
        merged = set(found).union(*touching)
        groups = [group for group in groups if group not in touching] + [merged]
    order = list(pipelines.sites.values())
    result = []
    for group in groups:
        sites = tuple(site for site in order if site in group)
        calls = tuple(call for call, found in pipelines.calls.items() if found & group)
        result.append(Choice(sites, calls))
    return sorted(result, key=lambda choice: order.index(choice.sites[0]))


def labels(groups: Iterable[Choice]) -> list[str]:
    """Return a name for each that no other has."""
    groups = list(groups)
    labels = []
    for group in groups:
        others = {name for g in groups if g is not group for site in g.sites for name in site.names}
        labels.append(next((name for name in group.sites[0].names if name not in others), group.sites[0].names[-1]))
    return labels


def _list(groups: list[Choice]) -> str:
    lines = [group.sites[0].names[-1] for group in groups]
    return ", ".join(
        f"`{label}` (line {line})" if label != line else f"line {line}"
        for label, line in zip(labels(groups), lines, strict=True)
    )
