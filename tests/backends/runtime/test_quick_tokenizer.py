from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffopt.backends.runtime.quick_tokenizer import QuickTokenizer


@given(prompts=st.lists(st.text(max_size=30), min_size=1, max_size=3))
def test_ids_are_the_tokenizers_own(shared_pipe: Any, prompts: list[str]) -> None:
    tokenizer = shared_pipe.tokenizer
    expected = tokenizer(prompts, padding="max_length", max_length=11, truncation=True, return_tensors="pt").input_ids
    actual = QuickTokenizer(tokenizer)(prompts)
    assert actual.tolist() == expected.tolist()
    assert actual.dtype == expected.dtype


def test_a_prompt_that_is_too_long_is_cut_with_a_warning(shared_pipe: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert QuickTokenizer(shared_pipe.tokenizer)(["a " * 20]).shape == (1, 11)
    assert "the prompt was cut after 11 tokens" in caplog.text


def test_a_tokenizer_without_a_rust_core_is_called_as_it_is(shared_pipe: Any) -> None:
    class Slow:
        model_max_length, pad_token_id = 11, 1

        def __call__(self, prompts: list[str], **arguments: Any) -> Any:
            return shared_pipe.tokenizer(prompts, **arguments)

    assert QuickTokenizer(Slow())(["a red"]).tolist() == QuickTokenizer(shared_pipe.tokenizer)(["a red"]).tolist()
