"""An error of the user's is one line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diffopt.ir.errors import DiffoptError


def test_says_what_where_and_what_to_do() -> None:
    error = DiffoptError("no such file", where="a.py:3", hint="check the path")
    assert str(error) == "a.py:3: no such file; check the path"


def test_where_and_hint_may_be_left_out() -> None:
    assert str(DiffoptError("no such file")) == "no such file"
    assert str(DiffoptError("no such file", hint="check")) == "no such file; check"


def test_keeps_its_parts() -> None:
    error = DiffoptError("what", "where", "hint")
    assert (error.message, error.where, error.hint) == ("what", "where", "hint")


@given(st.text(), st.text(), st.text())
def test_is_one_line_whatever_it_is_made_of(message: str, where: str, hint: str) -> None:
    assert len(str(DiffoptError(message, where, hint)).splitlines()) <= 1
