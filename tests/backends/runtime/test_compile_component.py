from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffopt.backends import BackendError
from diffopt.backends.runtime import compile_component, follow_step_plan, witnesses

Picture = Callable[..., torch.Tensor]


@pytest.fixture
def instant_compiler(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for torch.compile, which takes tens of seconds; notes the modes it was asked for."""
    asked: list[str] = []

    def compile(function: Any, *, mode: str) -> Any:
        asked.append(mode)
        return lambda *args, **kwargs: function(*args, **kwargs)

    monkeypatch.setattr(torch, "compile", compile)
    return asked


def test_the_denoiser_runs_through_the_compiler(pipe: Any, picture: Picture, instant_compiler: list[str]) -> None:
    plain = picture(pipe)
    compile_component(pipe, "denoiser", mode="max-autotune-no-cudagraphs")
    assert torch.equal(picture(pipe), plain)
    assert instant_compiler == ["max-autotune-no-cudagraphs"]
    assert [(w.transform, w.count) for w in witnesses(pipe)] == [("compile", 4)]


def test_both_passes_of_a_step_plan_run_through_it(pipe: Any, picture: Picture, instant_compiler: list[str]) -> None:
    plain = picture(follow_step_plan(pipe, steps=4, full=[0, 2]))
    compile_component(pipe, "unet")
    assert torch.equal(picture(pipe), plain)
    assert instant_compiler == ["default", "default"]
    assert witnesses(pipe)[-1].count == 4


def test_refuses_to_compile_twice(pipe: Any, instant_compiler: list[str]) -> None:
    compile_component(pipe, "vae")
    with pytest.raises(BackendError, match="compile was applied already"):
        compile_component(pipe, "vae")
