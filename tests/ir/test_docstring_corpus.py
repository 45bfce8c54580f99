"""The code blocks of diffusers' own docstrings: every one lifts or is refused with a place, nearly all lift whole."""

from __future__ import annotations

import re

import pytest

from diffopt.bench.corpus.examples import Row, rows, table

PLACE = re.compile(r"\.py:\d+: ")


@pytest.fixture(scope="module")
def found() -> list[Row]:
    return list(rows())


@pytest.mark.slow
def test_nearly_all_examples_of_diffusers_lift_whole(found: list[Row]) -> None:
    assert len(found) >= 250
    whole = sum(row.complete for row in found)
    assert whole >= 0.95 * len(found), table([row for row in found if not row.complete])


@pytest.mark.slow
def test_every_refusal_and_every_unknown_names_its_place(found: list[Row]) -> None:
    for row in found:
        assert not row.reason or PLACE.search(row.reason), row
        assert all("(line " in unknown for unknown in row.unknowns), row
        assert row.reason or row.pipelines > 0


@pytest.mark.slow
def test_the_table_has_a_line_for_each_and_its_totals(found: list[Row]) -> None:
    lines = table(found).splitlines()
    assert len(lines) == len(found) + 2
    assert lines[-1].startswith(f"{len(found)} code blocks: ")
