"""An evaluation makes the images of the emitted baseline, judges them, and keeps what other models' gave."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import pytest

from diffopt.bench.models.evaluate import main


@pytest.mark.slow
def test_an_evaluation_is_written_beside_the_others_and_over_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "models.json"
    other = {"model": "demo:other", "steps": 3, "right": 0.5}
    own = {"model": "demo:shapes", "steps": 3, "device": f"{platform.machine()}, {os.cpu_count()} cores", "right": 0.5}
    out.write_text(json.dumps({"models": [other, own]}))
    main(["--model", "demo:shapes", "--steps", "3", "--prompts", "3", "--batch", "2", "-o", str(out)])
    table = json.loads(out.read_text())
    assert [row["model"] for row in table["models"]] == ["demo:other", "demo:shapes"]
    assert table["models"][1]["prompts"] == 3
    assert 0 <= table["models"][1]["right"] <= table["models"][1]["attributes"] <= 1
    assert "torch" in table["versions"]
    assert "demo:shapes: 3 steps" in capsys.readouterr().out


def test_a_model_without_weights_is_not_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--model", "demo:nothing"])
    assert "there are demo:shapes" in capsys.readouterr().err
