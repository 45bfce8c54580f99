from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from diffopt import first_image
from diffopt.bench.device import environment


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def first(work: Path, name: str) -> float:
        started.append(name)
        if len(started) == 3:
            raise KeyboardInterrupt
        return float(len(started))

    monkeypatch.setattr(first_image, "_first", first)
    results = tmp_path / "results.json"
    arms = ["compile", "openvino, one engine"]
    monkeypatch.setattr(sys, "argv", ["", *arms, "--rounds", "2", "--work", str(tmp_path), "-o", str(results)])
    with pytest.raises(KeyboardInterrupt):
        first_image.main()
    assert first_image.main() == 0
    seconds = json.loads(results.read_text())["seconds"]
    assert sorted(seconds) == sorted(arms)
    assert sorted(second for taken in seconds.values() for second in taken) == [1.0, 2.0, 4.0, 5.0]
    assert first_image.main() == 0
    assert len(started) == 5


def test_figures_of_other_versions_are_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(
        json.dumps({"environment": {**environment(), "versions": {"torch": "1"}}, "seconds": {"compile": [1.0]}})
    )
    assert first_image.measured(path) == {}
    assert first_image.measured(tmp_path / "none.json") == {}
