import json

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.identity import module_hash
from diffopt.llm.catalogue import catalogue_text, describe, tool_description
from diffopt.passes.base import options, registry
from diffopt.passes.pipeline import Trace, run


def test_every_pass_and_option_of_the_registry_is_described(module: ModuleOp) -> None:
    before = module_hash(module)
    text = catalogue_text(describe(module))
    for name, pass_type in registry().items():
        assert f"{name} (family {pass_type.family.value}, tier {pass_type.tier.value})" in text
        assert all(f"option {option.name}: {option.type}" in text for option in options(pass_type))
    assert module_hash(module) == before


def test_legal_values_are_those_of_instances_that_are_not_refused(module: ModuleOp) -> None:
    note = next(note for note in describe(module) if note.name == "reduce-steps")
    assert note.count > 0
    assert all(isinstance(steps, int) and steps < 50 for steps in note.legal["steps"])


def test_a_pass_that_cannot_be_used_here_says_why(module: ModuleOp) -> None:
    reduced = run(Trace.parse("guidance-window{stop=0.6}"), module)
    assert isinstance(reduced, ModuleOp)
    notes = {note.name: note for note in describe(reduced)}
    assert notes["guidance-window"].count == 0
    assert f"not for this pipeline: {notes['guidance-window'].refusal}" in catalogue_text(notes.values())


def test_the_tool_description_is_json_with_a_schema_for_plans(module: ModuleOp) -> None:
    description = json.loads(tool_description(module))
    assert [item["name"] for item in description["passes"]] == list(registry())
    assert description["plan_schema"]["required"] == ["plans", "hints"]
    assert set(description["passes"][0]) >= {"tier", "summary", "notes", "options", "legal", "examples"}


def test_a_part_of_the_registry_can_be_described_alone(module: ModuleOp) -> None:
    few = {"reduce-steps": registry()["reduce-steps"]}
    assert [note.name for note in describe(module, few)] == ["reduce-steps"]
    assert "guidance-window (" not in tool_description(module, few)
