import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, JsonValue

from diffopt.llm.answer import one_line, read_completion, read_json
from diffopt.llm.budget import Usage


class Pair(BaseModel):
    a: int


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        ' \n{"a": 1}\n',
        'Sure:\n```json\n{"a": 1}\n```',
        '```\n{"b": 0}\n```\nbetter:\n```\n{"a": 1}\n```',
        'I take {"a": 1} then.',
        '<think>maybe {"a": 2}?</think>{"a": 1}',
    ],
)
def test_finds_the_object_that_is_meant(text: str) -> None:
    assert read_json(text, Pair) == Pair(a=1)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a": NaN}', "{" * 100_000, '{"a": 1' + "0" * 5000 + "}"])
def test_says_when_there_is_none(text: str) -> None:
    assert read_json(text, Pair) == "the answer holds no JSON object"


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_never_raises_on_what_a_model_may_say(text: str) -> None:
    assert isinstance(read_json(text, Pair), str | Pair)
    assert "\n" not in one_line(text)
    assert len(one_line(text)) <= 300


BODIES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["choices", "message", "content", "usage", "prompt_tokens"]), inner)
    ),
    max_leaves=10,
)


@settings(max_examples=50, deadline=None)
@given(BODIES)
def test_never_raises_on_what_an_endpoint_may_send(body: JsonValue) -> None:
    assert read_completion(body).status in ("ok", "invalid", "refused", "length")


def test_reads_content_sent_in_parts() -> None:
    parts: list[JsonValue] = [{"type": "text", "text": "o"}, {"type": "text", "text": "k"}, {"type": "image"}]
    body: JsonValue = {"choices": [{"message": {"content": parts}}], "usage": {"prompt_tokens": 2}}
    completion = read_completion(body)
    assert (completion.status, completion.text, completion.usage) == ("ok", "ok", None)


def test_reads_usage() -> None:
    body: JsonValue = {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 3}}
    assert read_completion(body).usage == Usage(2, 3)
