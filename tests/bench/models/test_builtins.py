"""Every built-in model that has weights lifts, brings prompts its scorer reads, and names its place in the wheel."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest

from diffopt.bench.fit import load_emitted
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


@pytest.mark.parametrize("name", shipped())
def test_a_model_is_kept_as_half_precision_numbers_and_text(name: str) -> None:
    from safetensors import safe_open

    model = BUILTINS[name]
    files = [path for path in model.directory.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt"}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in files)
    assert (model.directory.parent / "train.log").is_file()
    for path in (path for path in files if path.suffix == ".safetensors"):
        with safe_open(path, "np") as weights:
            kinds = {weights.get_slice(key).get_dtype() for key in weights.keys()}  # noqa: SIM118 - no mapping
        assert kinds <= {"F16", "I64"}, path


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped())
def test_the_emitted_baseline_makes_the_images_of_plain_diffusers_bit_for_bit(name: str) -> None:
    import diffusers
    import torch

    model = BUILTINS[name]
    index = json.loads((model.directory / "model_index.json").read_text())
    absent = {part: None for part, kind in index.items() if kind == [None, None]}
    by_hand = getattr(diffusers, index["_class_name"]).from_pretrained(model.directory, **absent, dtype=torch.float32)
    by_hand.set_progress_bar_config(disable=True)
    sizes = {} if index["_class_name"] == "DiTPipeline" else {"height": model.height, "width": model.width}
    call = {"guidance_scale": model.guidance, **sizes, **model.arguments}
    given = model.inputs(model.prompts("search", 2))

    def seeds() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (1, 2)]

    wanted = by_hand(**given, num_inference_steps=4, **call, generator=seeds(), output_type="np").images
    emitted = load_emitted(lift(name, steps=4).module)
    assert np.array_equal(emitted(**given, generator=seeds(), output_type="np").images, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in shipped() if name != "demo:shapes"])
def test_a_model_draws_what_prompts_say_in_ten_steps_and_the_same_twice(name: str) -> None:
    import torch

    model = BUILTINS[name]
    pipe, prompts = load_emitted(lift(name, steps=10).module), model.prompts("search", 12, seed=5)

    def drawn(count: int) -> npt.NDArray[np.float32]:
        seeds = [torch.Generator().manual_seed(seed) for seed in range(count)]
        return np.asarray(pipe(**model.inputs(prompts[:count]), generator=seeds, output_type="np").images)

    images = drawn(12)
    assert model.scorer().attributes_correct(images, prompts).mean() >= 0.95
    assert model.scorer().correct(images, prompts).mean() >= 0.75
    assert np.array_equal(drawn(2), drawn(2))


def test_a_model_without_weights_is_refused_with_those_that_have_some() -> None:
    with pytest.raises(DiffoptError, match="no such built-in model") as refused:
        lift("demo:nothing")
    assert "demo:shapes" in str(refused.value.hint)


def test_all_weights_together_stay_small() -> None:
    files = {path.resolve() for model in BUILTINS.values() for path in model.directory.parent.rglob("*.safetensors")}
    assert sum(path.stat().st_size for path in files) <= 28_000_000
