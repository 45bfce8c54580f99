"""What a task is: what it names, what it asks for, and the attributes that an answer's code must have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from diffopt.bench.suite.families import FAMILIES, SAMPLERS, Family

VERSION = 1
"""Of the suite: another generator, other shares or other words are another version."""

Option = int | float | str
Metric = Literal["speedup", "latency"]
Difficulty = Literal["easy", "medium", "hard"]
FACTORS: Mapping[Difficulty, float] = {"easy": 0.8, "medium": 1.0, "hard": 1.2}
QUALITY_LOSS = 0.05
"""The most quality that an answer may lose, relative to the baseline (the paper's sigma)."""

METHODS = {
    "fast-sampler": "a faster sampler",
    "deepcache": "DeepCache",
    "tome": "token merging (ToMe)",
    "tgate": "T-Gate",
    "half": "16-bit floats (bfloat16)",
}
"""The methods that tasks name, as their texts name them."""


@dataclass(frozen=True)
class Method:
    """A named method with the parameters that the task fixes.

    deepcache: interval. tome: ratio. tgate: gate_step. fast-sampler: sampler and steps. half: dtype.
    """

    name: str
    options: Mapping[str, Option] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """What a task of level 4 or 5 has to reach: a speed-up over its baseline, or a latency, at a bounded loss of quality.

    The number itself is measured on the machine at hand: a search's best times the difficulty's factor.
    """

    metric: Metric
    difficulty: Difficulty
    quality_loss: float = QUALITY_LOSS


@dataclass(frozen=True)
class Task:
    """One task.

    Args:
        id: level and number, `L3-007`; a held-out part puts its seed before.
        track: `paper`, or another once the suite has one.
        sampler: that the pipeline is asked to use; empty for the model's own.
        steps: of the pipeline, before any method.
        methods: that have to be applied; in levels 4 and 5, that may be.
        prompt: the task in words.
        reference: the plain script of the model that goes with the words.
    """

    id: str
    level: int
    family: str
    sampler: str
    steps: int
    methods: tuple[Method, ...]
    target: Target | None
    prompt: str
    reference: str
    track: str = "paper"

    @property
    def about(self) -> Family:
        """The family of its model."""
        return FAMILIES[self.family]

    def method(self, name: str) -> Method | None:
        """Return a method that it names, or None."""
        return next((method for method in self.methods if method.name == name), None)

    def expected(self) -> dict[str, Any]:
        """Return the attributes that the code of an answer must have; what is free is left out."""
        family = self.about
        found: dict[str, Any] = {
            "pipeline_class": family.pipeline_class,
            "model": family.model,
            "height": None if family.key == "dit" else family.size,
            "width": None if family.key == "dit" else family.size,
        }
        if family.key == "controlnet":
            found["preprocessor"] = "canny"
        if self.level > 3:
            return found
        fast, half = self.method("fast-sampler"), self.method("half")
        sampler = str(fast.options["sampler"]) if fast else self.sampler
        return found | {
            "scheduler": SAMPLERS[sampler] if sampler else family.own,
            "steps": int(fast.options["steps"]) if fast else self.steps,
            "guidance": family.guidance,
            "dtype": str(half.options["dtype"]) if half else "float32",
            "methods": {m.name: dict(m.options) for m in self.methods if m.name not in ("fast-sampler", "half")},
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data, with the expected attributes."""
        return {
            "id": self.id,
            "track": self.track,
            "level": self.level,
            "prompt": self.prompt,
            "specification": {
                "family": self.family,
                "stands_for": self.about.original,
                "model": self.about.model,
                "pipeline_class": self.about.pipeline_class,
                "sampler": self.sampler,
                "steps": self.steps,
                "guidance": self.about.guidance,
                "methods": {method.name: dict(method.options) for method in self.methods},
                "target": None
                if self.target is None
                else {
                    "metric": self.target.metric,
                    "difficulty": self.target.difficulty,
                    "quality_loss": self.target.quality_loss,
                },
            },
            "expected": self.expected(),
            "reference": self.reference,
            "unavailable": self.about.unavailable(),
        }
