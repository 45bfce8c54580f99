"""Every built-in model that has weights lifts, brings prompts its scorer reads, and names its place in the wheel."""

from __future__ import annotations

import pytest

from diffopt.bench.models import BUILTINS, builtin, shipped
from diffopt.ir.errors import DiffoptError
from diffopt.sources import lift


@pytest.mark.parametrize("name", BUILTINS)
def test_a_model_is_filed_under_its_own_name(name: str) -> None:
    model = BUILTINS[name]
    assert model.name == name
    assert name.removeprefix("demo:").replace("-", "_") == model.directory.parent.name


@pytest.mark.parametrize("name", BUILTINS)
def test_prompts_of_two_splits_never_overlap_and_repeat_by_seed(name: str) -> None:
    model = BUILTINS[name]
    splits = {split: model.prompts(split, 40) for split in ("calibration", "search", "heldout")}
    assert all(len(prompts) == 40 for prompts in splits.values())
    assert len(set().union(*splits.values())) == 120
    assert model.prompts("heldout", 5) == splits["heldout"][:5]
    assert model.prompts("heldout", 5, seed=1) != splits["heldout"][:5]


@pytest.mark.parametrize("name", shipped())
def test_a_model_with_weights_lifts_with_its_baseline(name: str) -> None:
    from diffopt.ir.dialect import components

    model = builtin(name)
    assert model is not None
    source = lift(name)
    assert source.builtin is model
    call = components(source.module)["pipeline"].values
    assert (call["height"], call["width"]) == (model.height, model.width)


def test_a_model_without_weights_is_refused_with_those_that_have_some() -> None:
    with pytest.raises(DiffoptError, match="no such built-in model") as refused:
        lift("demo:nothing")
    assert "demo:shapes" in str(refused.value.hint)


def test_all_weights_together_stay_small() -> None:
    files = {path.resolve() for model in BUILTINS.values() for path in model.directory.parent.rglob("*.safetensors")}
    assert sum(path.stat().st_size for path in files) <= 28_000_000
