"""What is known reaches the prompt by relevance, each line with where it came from."""

from __future__ import annotations

from pathlib import Path

from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.outcome import Failed, Fidelity, Latency, Measured, Memory
from diffopt.llm import lessons
from diffopt.llm.knowledge import Situation, composition, knowledge_text, relevant_lessons, relevant_rules, rules
from diffopt.llm.lessons import Lesson, lessons_of
from diffopt.passes.base import registry
from tests.llm.conftest import Candidate, Trial

UNET, DIT = "diffusers.UNet2DConditionModel", "diffusers.PixArtTransformer2DModel"


def lesson(trace: str, denoiser: str = UNET, device: str = "cpu") -> Lesson:
    kind = "unet" if denoiser == UNET else "transformer"
    return Lesson(1, "diffusers.StableDiffusionPipeline", denoiser, kind, device, trace, "2.00x", "run a, trial 1")


def measured(ratio: float, tier: str) -> Measured:
    latency = Latency(ratio, ratio * 0.9, ratio * 1.1, 5, (1.0,) * 5, (1 / ratio,) * 5)
    fidelity = Fidelity(40.0, 38.0, 36.0, 0.9, None, None, None, None, 8, ())
    return Measured(latency, fidelity, Memory(1, 1), 0.0, 0.0, 0.0, (), tier)


def test_the_prompt_is_told_rules_composition_and_lessons_each_with_its_origin(module: ModuleOp) -> None:
    text = knowledge_text(Situation.of(module, "cpu"), [lesson("reduce-steps{steps=8}")])
    assert "Rules:\n- " in text
    assert "What goes with what:\n- " in text
    assert "on UNet2DConditionModel, cpu: reduce-steps{steps=8} | 2.00x [run a, trial 1]" in text
    assert all(line.endswith("]") for line in text.splitlines() if line.startswith("- "))


def test_rules_name_passes_that_there_are_and_files_that_there_are(repository: Path) -> None:
    kinds = {"cpu", "cuda", "unet", "transformer"}
    for rule in rules():
        assert set(rule.about) - kinds <= set(registry()), rule
        for word in rule.origin.split():
            if word.startswith("bench/results/"):
                assert (repository / word.rstrip(",")).is_file(), word


def test_rules_of_other_devices_and_denoisers_are_not_told(module: ModuleOp) -> None:
    here = relevant_rules(Situation.of(module, "cpu"), registry())
    there = relevant_rules(Situation("p", DIT, "transformer", "cuda"), registry())
    assert any("cpu" in rule.about for rule in here)
    assert not any({"cpu", "unet"} & set(rule.about) for rule in there)
    assert here[0].about, "what names this situation comes before what holds always"


def test_lessons_come_from_runs_like_this_one_nearest_and_newest_first(module: ModuleOp) -> None:
    kept = [
        lesson("a", DIT, "cuda"), lesson("b", DIT, "cpu"), lesson("c", UNET, "cuda"), lesson("d"), lesson("d"), lesson("e"),
    ]  # fmt: skip
    found = relevant_lessons(Situation.of(module, "cpu"), kept)
    assert [each.trace for each in found] == ["e", "d", "c", "b"]


def test_composition_says_what_passes_declare() -> None:
    lines = composition({"export": registry()["export"], "quantize": registry()["quantize"]})
    assert any("quantiz" in line and "export" in line for line in lines)


def test_a_run_teaches_its_best_of_each_tier_and_each_kind_of_failure_once(tmp_path: Path) -> None:
    trials = [
        Trial(Candidate("slow", "1"), measured(1.1, "near")),
        Trial(Candidate("fast", "2"), measured(3.0, "near")),
        Trial(Candidate("plain", "3"), measured(1.0, "exact")),
        Trial(Candidate("crash a", "4"), Failed("crash", "the worker died")),
        Trial(Candidate("crash b", "5"), Failed("crash", "the worker died")),
    ]
    found = lessons_of(trials, pipeline="p", denoiser=UNET, architecture="unet", device="cpu", origin="run x")
    assert [(each.trace, each.origin) for each in found] == [
        ("fast", "run x, trial 2"), ("plain", "run x, trial 3"), ("crash a", "run x, trial 4"),
    ]  # fmt: skip
    file = tmp_path / "more" / "lessons.jsonl"
    lessons.add(file, found[:2])
    lessons.add(file, found[2:])
    with file.open("a") as torn:
        torn.write('{"format": 1, "pip')
    assert list(lessons.read(file)) == found
    assert lessons.read(tmp_path / "none") == ()
