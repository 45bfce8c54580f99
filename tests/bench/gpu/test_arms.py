"""Every arm of the GPU bench is code that diffopt emits."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from diffopt.bench.gpu.arms import ARMS, SHARES, Arm
from diffopt.bench.gpu.build import emitted
from diffopt.bench.gpu.run import GROUPS
from diffopt.bench.models.fullsize import write_model

CASES = [(model, arm) for model, arms in ARMS.items() for arm in arms]


@pytest.mark.parametrize(("model", "arm"), CASES, ids=lambda value: getattr(value, "name", value))
def test_an_arm_is_emitted(model: str, arm: Arm, tmp_path: Path) -> None:
    said = write_model(model, tmp_path)
    call = {"steps": said.steps, "guidance": said.guidance, "height": said.height, "width": said.width}
    code = emitted(arm, tmp_path, call, compiled=True)
    ast.parse(code)
    assert "seeded_pipeline(" in code
    assert ("capture_step(" in code) == (arm.kind == "ours")


def test_processes_of_their_own_name_arms_that_are() -> None:
    for model, names in GROUPS.values():
        assert set(names.split(",")) <= {arm.name for arm in ARMS[model]}
    assert sum(SHARES.values()) == pytest.approx(1)
