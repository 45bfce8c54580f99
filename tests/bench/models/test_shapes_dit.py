"""demo:shapes-dit: every class is a scene of one object, and learns as the sum of its attributes."""

from __future__ import annotations

import torch

from diffopt.bench.models.shapes.captions import parse
from diffopt.bench.models.shapes_dit import SHAPES_DIT
from diffopt.bench.models.shapes_dit.classes import CLASSES, NULL, attributes, phrase, scene_of_class
from diffopt.bench.models.shapes_dit.recipe import RECIPE


def test_a_class_is_named_in_words_that_read_back_as_its_scene() -> None:
    assert all(parse(phrase(number)) == scene_of_class(number) for number in range(0, CLASSES, 7))


def test_classes_that_differ_have_other_attributes() -> None:
    rows = attributes()
    assert len(set(rows)) == CLASSES
    one, other = scene_of_class(0), scene_of_class(1)
    differing = sum(a != b for a, b in zip(rows[0], rows[1], strict=True))
    (item,), (second,) = one.items, other.items
    assert differing == sum(getattr(item, name) != getattr(second, name) for name in vars(item)) + (
        one.background != other.background
    )


def test_prompts_are_given_as_numbers_of_classes() -> None:
    prompts = SHAPES_DIT.prompts("heldout", 3)
    numbers = SHAPES_DIT.inputs(prompts)["class_labels"]
    assert isinstance(numbers, list)
    assert [phrase(number) for number in numbers] == prompts


def test_sums_of_attributes_become_the_table_that_diffusers_knows() -> None:
    torch.manual_seed(0)
    stored = RECIPE.network()
    learning = RECIPE.begun(stored)
    done = RECIPE.finished(learning)
    latents, times = torch.randn(3, 4, 16, 16), torch.tensor([5, 300, 900])
    classes = torch.tensor([0, 500, NULL])
    with torch.no_grad():
        before = learning.eval()(latents, timestep=times, class_labels=classes).sample
        after = done.eval()(latents, timestep=times, class_labels=classes).sample
    assert torch.allclose(before, after, atol=1e-6)
    assert set(done.state_dict()) == set(RECIPE.network().state_dict())
