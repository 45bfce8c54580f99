"""An evaluation makes the images of the emitted baseline, judges them, and keeps what other models' gave."""

from __future__ import annotations

import pytest

from diffopt.bench.models.evaluate import main


def test_a_model_without_weights_is_not_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--model", "demo:nothing"])
    assert "there are demo:shapes" in capsys.readouterr().err
