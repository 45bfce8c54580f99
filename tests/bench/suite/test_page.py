"""The page of DiffBench is what the report command writes of the results in the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffopt.bench.suite.page import page
from diffopt.bench.suite.results import read_results
from diffopt.bench.suite.searches import read_searches, searches_faults
from diffopt.bench.suite.submission import check_file

RESULTS = ("bench/results/diffbench-rules-cpu.json.gz", "bench/results/diffbench-rules-later-cpu.json.gz")
"""The second is of models that came after the first."""

SEARCHES = "bench/results/diffbench-searches-cpu.json.gz"


def test_the_page_is_current(repository: Path) -> None:
    written = (repository / "docs" / "diffbench.md").read_text(encoding="utf-8")
    found = [read_searches(path) for path in (repository / SEARCHES,) if path.exists()]
    made = page([read_results(repository / path) for path in RESULTS], found)
    assert written == made, f"run diffopt bench report {' '.join(RESULTS)} {SEARCHES} -o docs/diffbench.md"


def test_the_searches_in_the_repository_follow_from_their_samples(repository: Path) -> None:
    assert all(searches_faults(read_searches(path)) == [] for path in (repository / SEARCHES,) if path.exists())


@pytest.mark.parametrize("path", RESULTS)
def test_the_results_in_the_repository_follow_from_their_samples(repository: Path, path: str) -> None:
    found = read_results(repository / path)
    sample = dict(list(found.answers.items())[::15])
    some = type(found)(**{**vars(found), "answers": sample})
    assert check_file(some) == []
