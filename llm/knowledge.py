"""What is known before anything is measured: rules, what composes with what, lessons of other runs, each with its origin."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components, denoiser_of
from diffopt.llm.answer import one_line
from diffopt.llm.lessons import Lesson
from diffopt.passes.base import DiffusionPass, registry
from diffopt.passes.rules import architecture, table

RULES, LESSONS, PAIRS = 8, 12, 40
"""How much of each kind is told at most."""


@dataclass(frozen=True)
class Situation:
    """What a run is about: classes of the pipeline and its denoiser, their kind, and the device's."""

    pipeline: str
    denoiser: str
    architecture: str
    device: str

    @classmethod
    def of(cls, module: ModuleOp, device: str) -> Situation:
        """Read a situation off a module."""
        pipeline = components(module)["pipeline"].class_name.data
        return cls(pipeline, denoiser_of(module).class_name.data, architecture(module), device.partition(":")[0])


@dataclass(frozen=True)
class Rule:
    """A sentence, what it is about (passes, kinds of denoisers, devices; nothing for always), and its origin."""

    text: str
    about: tuple[str, ...]
    origin: str


def knowledge_text(
    situation: Situation, lessons: Iterable[Lesson] = (), passes: Mapping[str, type[DiffusionPass]] | None = None
) -> str:
    """Print what is relevant to a situation, most relevant first, each line with where it came from."""
    found = registry() if passes is None else passes
    usable = {name: kind for name, kind in found.items() if _suits(kind, situation) and not kind.on_request}
    parts = [
        ("Rules", [f"{rule.text} [{rule.origin}]" for rule in relevant_rules(situation, usable)]),
        ("What goes with what", composition(usable)),
        ("Lessons of other runs", [str(lesson) for lesson in relevant_lessons(situation, lessons)]),
    ]
    return "\n".join(f"{title}:\n" + "\n".join(f"- {line}" for line in lines) for title, lines in parts if lines)


@cache
def rules() -> tuple[Rule, ...]:
    """Return the rules that come with diffopt."""
    text = (files("diffopt.llm") / "known" / "rules.json").read_text(encoding="utf-8")
    return tuple(Rule(item["text"], tuple(item["about"]), item["origin"]) for item in json.loads(text))


def relevant_rules(situation: Situation, passes: Mapping[str, type[DiffusionPass]]) -> list[Rule]:
    """Return the rules that speak of this situation, those that name more of it first."""
    kinds = {"cpu", "cuda", "unet", "transformer"}
    here = {situation.architecture, situation.device}
    scored = []
    for number, rule in enumerate(rules()):
        about = set(rule.about)
        if about & kinds - here or (about - kinds and not (about - kinds) & set(passes)):
            continue  # of another kind of device or denoiser, or only of passes that are not for this one
        scored.append((-len(about & (here | set(passes))), number, rule))
    return [rule for _, _, rule in sorted(scored)][:RULES]


def relevant_lessons(situation: Situation, lessons: Iterable[Lesson]) -> list[Lesson]:
    """Return lessons of runs like this one: the same denoiser above the same kind, the same device above another."""
    scored = []
    for number, lesson in enumerate(lessons):
        score = 3 * (lesson.denoiser == situation.denoiser) + 2 * (lesson.architecture == situation.architecture)
        score += 2 * (lesson.pipeline == situation.pipeline) + (lesson.device == situation.device)
        if score >= 3:
            scored.append((-score, -number, lesson))
    told: dict[str, Lesson] = {}
    for _, _, lesson in sorted(scored, key=lambda item: item[:2]):
        told.setdefault(lesson.trace, lesson)
    return list(told.values())[:LESSONS]


def composition(passes: Mapping[str, type[DiffusionPass]]) -> list[str]:
    """Return the declared order, exclusions and groups of passes, one line a pass that has some."""
    lines = []
    for name, kind in passes.items():
        rows = [row for row in table(kind) if row.rule not in ("package", "only for")]
        if rows:
            said = "; ".join(f"{row.rule} {row.about}{row.reason and f' ({row.reason})'}" for row in rows)
            lines.append(f"{name}: {one_line(said, 400)} [declared by the pass]")
    return lines[:PAIRS]


def _suits(kind: type[DiffusionPass], situation: Situation) -> bool:
    return not kind.architectures or situation.architecture in kind.architectures
