"""From what was measured to answers and targets: one rule for all arms."""

from __future__ import annotations

import pytest

from diffopt.bench.outcome import Failed
from diffopt.bench.suite.choosing import Record, chosen, fastest_first, target_of, winners
from tests.bench.suite.conftest import Record as Maker

LOST = (1.0,) * 8 + (0.4, 0.6)
FAILED: Record = {"outcome": Failed("crash", "it fell").to_json(), "adherence": None}


@pytest.fixture
def records(record: Maker) -> dict[str, Record]:
    """Four programs: twice, four and eight times as fast, the last at a loss; and one that does not run."""
    return {
        "twice": record(times=(0.5, 0.5, 0.5), shares=(1.0,) * 10),
        "four": record(times=(0.25, 0.25, 0.25), shares=(1.0,) * 8 + (0.9, 0.8)),
        "eight": record(times=(0.125, 0.125, 0.125), shares=LOST),
        "broken": FAILED,
    }


def test_the_fastest_come_first_and_what_loses_quality_or_fails_does_not_come(records: dict[str, Record]) -> None:
    assert fastest_first(records, records) == ["four", "twice"]


def test_of_those_fast_enough_the_one_that_loses_least_answers(records: dict[str, Record]) -> None:
    assert chosen(list(records), records, 1.5) == "twice"
    assert chosen(list(records), records, 3.0) == "four"


def test_where_none_is_fast_enough_the_fastest_within_the_bound_answers(records: dict[str, Record]) -> None:
    assert chosen(list(records), records, 40.0) == "four"
    assert chosen(list(records), records, None) == "four"
    assert chosen(["eight", "broken"], records, 2.0) == ""


def test_what_a_search_did_not_measure_answers_nothing(records: dict[str, Record]) -> None:
    assert chosen(["twice"], records, 3.0) == "twice"


def test_a_winner_that_loses_quality_where_it_is_judged_gives_way_to_the_next(records: dict[str, Record]) -> None:
    judged: dict[str, Record] = {}
    seen = []
    for name in winners(records, records, judged):
        seen.append(name)
        judged[name] = records["eight" if name == "four" else name]
    assert seen == ["four", "twice"]
    assert target_of(judged["twice"])["speedup"] == pytest.approx(2.0)
