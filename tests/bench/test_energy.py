from __future__ import annotations

from pathlib import Path

from diffopt.bench.energy import meter


def counter(folder: Path, name: str, microjoules: int) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")


def test_packages_are_added_up_and_their_parts_are_not(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", 1_000_000)
    counter(tmp_path, "intel-rapl:1", 2_000_000)
    counter(tmp_path, "intel-rapl:0:0", 9_000_000)
    found = meter("cpu", powercap=tmp_path)
    start = found.now()
    assert start == 3.0
    counter(tmp_path, "intel-rapl:1", 2_500_000)
    assert found.since(start) == 0.5


def test_a_counter_that_has_wrapped_around_says_nothing(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", 5_000_000)
    found = meter("cpu", powercap=tmp_path)
    start = found.now()
    counter(tmp_path, "intel-rapl:0", 1_000_000)
    assert found.since(start) is None


def test_where_there_is_no_counter_it_is_said(tmp_path: Path) -> None:
    found = meter("cpu", powercap=tmp_path)
    assert found.now() is None
    assert "no energy counters" in found.reason
