import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffopt.llm.template import Template, data_block, load, with_folder, without_folder


def test_fills_in_once() -> None:
    template = Template("t", "=== one\n{{a}} and {{b}}\n=== two\nx\n")
    assert template.render("one", a="{{b}}", b="B") == "{{b}} and B"
    assert template.render("two") == "x"


def test_a_place_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        Template("t", "=== one\n{{a}}\n").render("one")


def test_the_planner_template_has_its_sections_and_a_stable_name() -> None:
    template = load("planner")
    assert template.render("system").startswith("You tune")
    assert template.identity == load("planner").identity
    assert len(template.text) < 4000


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_a_data_block_cannot_be_ended_from_inside(text: str) -> None:
    block = data_block(text)
    begin, *body, end = block.split("\n")
    assert begin.removeprefix("BEGIN ") == end.removeprefix("END ")
    assert end not in body
    assert all(line.isprintable() for line in body)
    assert data_block(text) == block


def test_a_long_text_loses_its_middle_and_says_so() -> None:
    block = data_block("a" * 500 + "b" * 500, limit=100)
    assert "[900 characters left out]" in block
    assert len(block) < 250


def test_an_emitted_file_is_shown_without_the_place_of_its_model_and_gets_it_back() -> None:
    file = 'import torch\n\nMODEL = "/home/ann/secret customer/tiny"\n\n\ndef load(model=MODEL):\n    return model\n'
    shown = without_folder(file)
    assert 'MODEL = "tiny"\n' in shown
    assert "ann" not in shown
    assert with_folder(shown, file) == file
    assert with_folder("x = 1\n", file) == "x = 1\n"
    assert without_folder("x = 1\n") == "x = 1\n"
    assert without_folder('MODEL = "some/model"\n') == 'MODEL = "some/model"\n', "of the hub"
