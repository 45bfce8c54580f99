"""Every recipe, with weights or not yet, takes a training step that changes its denoiser, and draws with its own pipeline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diffopt.bench.models.learning.one import POOLS, RECIPES, generate


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_its_denoiser_and_draws(name: str) -> None:
    import torch

    recipe = replace(RECIPES[name], batch=4)
    torch.manual_seed(recipe.seed)
    parts = recipe.blank()
    pool = POOLS[recipe.pool]
    drawn = pool.draw(8, pool.seed)
    feed = recipe.feed(drawn, parts, torch.device("cpu"))
    network = parts[recipe.component].train()
    loss = recipe.loss(network, feed)
    torch.autograd.backward(loss)
    assert torch.isfinite(loss)
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in network.parameters())
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in network.parameters())
    prompts = ["a large red circle in the center on a white background"]
    images = generate(recipe, recipe.pipeline(parts), prompts, steps=2)
    assert images.shape == (1, 64, 64, 3)
