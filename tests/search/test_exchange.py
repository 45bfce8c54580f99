from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from diffopt.bench.outcome import Failed, Measured
from diffopt.ir.errors import DiffoptError
from diffopt.search.exchange import Added, exported, imported
from diffopt.search.store import MEMORY, Store


def filled(path: Path | str, outcome: Callable[..., Measured], keys: str, libraries: str = "1") -> Store:
    store = Store(path)
    store.open_run("search", {"module": "m", "libraries": libraries})
    for number, key in enumerate(keys):
        asked = store.add_candidate("search", trace=f"pass-{key}", key=key, origin="test", facts={"steps": 4.0})
        store.tell("search", asked.id, outcome(1.0 + number) if number else Failed("crash", "died", "log"))
    return store


def test_a_run_travels_whole_and_once(outcome: Callable[..., Measured]) -> None:
    with filled(MEMORY, outcome, "abc") as one, Store(MEMORY) as other:
        document = json.loads(json.dumps(exported(one)))
        assert imported(other, document) == Added(1, 3, 0)
        assert imported(other, document) == Added(0, 0, 3)
        (name,) = other.runs()
        assert [t.outcome for t in other.trials(name)] == [t.outcome for t in one.trials("search")]
        assert [t.candidate for t in other.trials(name)] == [t.candidate for t in one.trials("search")]
        # On from there it is the same document.
        assert imported(one, exported(other)) == Added(1, 3, 0)


def test_runs_of_the_same_making_are_united_and_others_kept_apart(outcome: Callable[..., Measured]) -> None:
    with (
        filled(MEMORY, outcome, "abc") as one,
        filled(MEMORY, outcome, "cd") as same,
        filled(MEMORY, outcome, "ab", libraries="2") as newer,
        Store(MEMORY) as all_of_them,
    ):
        for store in (one, same, newer):
            imported(all_of_them, exported(store))
        assert sorted(len(all_of_them.trials(name)) for name in all_of_them.runs()) == [2, 4]


def test_what_waits_to_be_measured_stays_behind(outcome: Callable[..., Measured]) -> None:
    with filled(MEMORY, outcome, "ab") as one:
        one.add_candidate("search", trace="pass-z", key="z", origin="test", facts={})
        assert len(exported(one)["runs"][0]["trials"]) == 2


@pytest.mark.parametrize("data", [{}, {"format": "diffopt-runs", "version": 99}])
def test_another_document_is_refused(data: dict[str, object]) -> None:
    with Store(MEMORY) as store, pytest.raises(DiffoptError, match="not a diffopt-runs document"):
        imported(store, data, where="x.json")


def test_a_broken_document_is_one_line() -> None:
    data = {"format": "diffopt-runs", "version": 1, "runs": [{"id": "a", "manifest": {}, "trials": [{"trace": 1}]}]}
    with Store(MEMORY) as store, pytest.raises(DiffoptError, match="broken") as raised:
        imported(store, data)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("ratio", ["fast", None, True, 0.0, float("nan")])
def test_a_ratio_that_is_no_number_is_one_line(outcome: Callable[..., Measured], ratio: object) -> None:
    with filled(MEMORY, outcome, "ab") as one, Store(MEMORY) as other:
        document = json.loads(json.dumps(exported(one)))
        document["runs"][0]["trials"][1]["outcome"]["latency"]["ratio"] = ratio
        with pytest.raises(DiffoptError, match=r"a broken document \(ValueError: latency.ratio is") as said:
            imported(other, document, where="runs.json")
        assert "\n" not in str(said.value)
        assert other.runs() == {}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("manifest", "target"), "\ud800"),
        (("trials", 0, "outcome", "kind"), "\ud800"),
        (("trials", 1, "outcome", "witnesses"), [{}]),
        (("trials", 1, "outcome", "tier"), []),
        (("trials", 1, "outcome", "memory", "peak_bytes"), 10**400),
    ],
)
def test_what_could_not_be_written_or_told_again_adds_nothing(
    outcome: Callable[..., Measured], place: tuple[str | int, ...], value: object
) -> None:
    with filled(MEMORY, outcome, "ab") as one, Store(MEMORY) as other:
        document = json.loads(json.dumps(exported(one)))
        inner = document["runs"][0]
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = value
        with pytest.raises(DiffoptError, match="a broken document"):
            imported(other, document)
        assert other.runs() == {}


def test_a_run_that_is_not_there_is_named(outcome: Callable[..., Measured]) -> None:
    with filled(MEMORY, outcome, "a") as store, pytest.raises(DiffoptError, match="there is search"):
        exported(store, run="other")
