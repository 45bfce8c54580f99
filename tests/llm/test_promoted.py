"""A candidate of a run becomes a working pass when a person says so: shown, and used by its name, in the sandbox."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from diffopt.cli import main
from diffopt.llm.generated import GeneratedPass
from diffopt.llm.library import Library, entry_of

INSERTED = "    pipe.unet.forward = torch.inference_mode()(pipe.unet.forward)\n    call_defaults(pipe"


def test_a_candidate_is_promoted_shown_and_used_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    written: Callable[..., GeneratedPass],
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    run, right, wrong = tmp_path / "out.run", written("right"), written("wrong-api")
    library = Library(run / "passes")
    library.add(right, entry_of(right, "candidate", "", level=4))
    library.add(wrong, entry_of(wrong, "failed", "build: AttributeError", level=4))
    assert main(["passes", "promote", str(run), "wrong-api"]) == 2
    assert "wrong-api is no candidate: failed" in capsys.readouterr().err
    emit = ["emit", "demo:shapes", "--passes", "reduce-steps{steps=12},no-history"]
    assert main(emit) == 2, "not by its name before that"
    assert main(["passes", "promote", str(run), "no-history"]) == 0
    assert main(["passes"]) == 0
    assert "no-history  exact  Run the denoiser in torch's inference mode" in capsys.readouterr().out
    assert main(["passes", "no-history"]) == 0
    assert right.id in capsys.readouterr().out
    assert main(emit) == 0
    assert INSERTED in capsys.readouterr().out
    assert main(["opt", "demo:shapes", "--passes", "no-history"]) == 0
    assert f'diffusion.rewrite "{right.id}"' in capsys.readouterr().out
    assert main([*emit, "--sandbox-level", "5"]) == 2
    assert "level 4, 5 is asked for: no container" in capsys.readouterr().err
