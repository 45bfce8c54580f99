from __future__ import annotations

from diffopt.search.study.replay import OURS, lines_of, summary


def run(share: float, needed: int | None) -> dict[str, object]:
    return {"share": [share] * 5, "needed": {"0.8": needed, "0.9": needed}}


def test_a_run_that_does_not_get_there_counts_as_more_than_any_that_does() -> None:
    known = {("a", 0): run(0.5, None), ("a", 1): run(0.5, None), ("a", 2): run(0.9, 30)}
    known |= {(OURS, seed): run(0.95, 20 + seed) for seed in range(3)}
    table = summary(known, [OURS, "a"], [0, 1, 2])
    assert table["methods"][OURS]["needed for 0.9"] == {"median": 21, "not within": 0}
    assert table["methods"]["a"]["needed for 0.9"] == {"median": 121, "not within": 2}
    assert table["methods"]["a"]["p"]["28"] < 0.05
    assert "> 120" in lines_of(table)[2]
