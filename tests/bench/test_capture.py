from __future__ import annotations

import os

from diffopt.bench.capture import Capture


def drained(*chunks: bytes) -> str:
    capture = Capture()
    for chunk in chunks:
        out, into = os.pipe()
        os.write(into, chunk)
        os.close(into)
        while capture.drain(out):
            pass
        os.close(out)
    return capture.text()


def test_a_short_output_is_kept_whole() -> None:
    assert drained(b"one\n", b"two\n") == "one\ntwo\n"


def test_of_a_long_output_the_beginning_and_the_end_are_kept() -> None:
    text = drained(b"first", *([b"x" * 60_000] * 20), b"last")
    assert text.startswith("first")
    assert text.endswith("last")
    assert "bytes left out" in text
    assert len(text) < 70_000


def test_an_empty_pipe_is_no_end() -> None:
    out, into = os.pipe()
    os.set_blocking(out, False)
    assert not Capture().drain(out)
    for end in (out, into):
        os.close(end)
