from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffopt.bench.frames import HEADER, JSON, FrameError, body_length, decode, encode, payload_shape

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
messages = st.dictionaries(st.text(), st.recursive(leaves, lambda inner: st.lists(inner, max_size=3), max_leaves=8))
GOOD: JSON = {"shape": [1, 2, 2, 3], "dtype": "float32", "bytes": 48, "sha256": "0" * 64}


@given(messages)
@settings(max_examples=100, deadline=None)
def test_a_message_comes_back_as_it_was_sent(message: JSON) -> None:
    frame = encode(message)
    header, body = frame[: HEADER.size], frame[HEADER.size :]
    assert body_length(header) == len(body)
    assert decode(body) == message


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_message_or_a_frame_error(body: bytes) -> None:
    with contextlib.suppress(FrameError):
        assert isinstance(decode(body), dict)


@pytest.mark.parametrize("length", [0, 1, (1 << 20) + 1, (1 << 32) - 1])
def test_a_frame_of_absurd_length_is_refused_before_anything_is_read(length: int) -> None:
    with pytest.raises(FrameError):
        body_length(HEADER.pack(length))


def test_deep_nesting_is_a_frame_error() -> None:
    with pytest.raises(FrameError):
        decode(b"[" * 100_000)


def test_nothing_larger_than_a_frame_is_sent() -> None:
    with pytest.raises(FrameError):
        encode({"text": "x" * (1 << 20)})


def test_an_announcement_of_images_is_read() -> None:
    assert payload_shape(GOOD) == ((1, 2, 2, 3), "float32", 48, "0" * 64)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": None}, {"shape": [1, 2, 2]}, {"shape": [1, 2, -2, 3]}, {"shape": [1, 2, True, 3]},
        {"shape": [60000, 60000, 60000, 3]}, {"dtype": "float64"}, {"dtype": ["float32"]}, {"bytes": 47}, {"bytes": "48"},
        {"sha256": "0"}, {"sha256": None},
    ],
)  # fmt: skip
def test_an_announcement_that_does_not_add_up_is_refused(change: JSON) -> None:
    with pytest.raises(FrameError):
        payload_shape(GOOD | change)
