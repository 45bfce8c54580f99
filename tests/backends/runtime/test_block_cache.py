from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffopt.backends import BackendError
from diffopt.backends.runtime import follow_step_plan, witnesses
from diffopt.backends.runtime.step_plan import PLAN

Make = Callable[[], tuple[Any, dict[str, Any]]]
Latents = Callable[..., torch.Tensor]


def planned(make: Make, **plan: Any) -> tuple[Any, dict[str, Any]]:
    pipe, call = make()
    chosen = {"steps": 4, "full": [0, 2], "blocks": (1, 0), **plan}
    return follow_step_plan(pipe, component="transformer", **chosen), call


@pytest.mark.parametrize("blocks", [(0, 0), (1, 0), (1, 1), (0, 2), (3, 0)])
def test_a_shallow_pass_on_fresh_features_is_the_full_pass(make: Make, latents: Latents, blocks: Any) -> None:
    pipe, call = planned(make, blocks=blocks)
    plan = pipe.transformer.__dict__[PLAN]
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    full, shallow = plan.leaves["full"].module, plan.leaves["shallow"].module

    def both(*inputs: torch.Tensor) -> Any:
        out, *features = full(*inputs)
        seen.append((out, shallow(*inputs, *features)[0]))
        return (out, *features)

    plan.leaves["full"].run = both
    latents(pipe, call)
    assert len(seen) == 2
    for out, again in seen:
        assert torch.allclose(out, again, atol=1e-4 * float(out.abs().max()))


def test_cached_steps_skip_the_middle_blocks(make: Make, latents: Latents) -> None:
    pipe, call = planned(make, blocks=(1, 1))
    counts = []
    for name in ("transformer_blocks", "single_transformer_blocks"):
        for block in getattr(pipe.transformer, name, ()):
            ran: list[int] = []
            norm = next(module for child, module in block.named_children() if child.startswith("norm"))
            norm.register_forward_hook(lambda *_, ran=ran: ran.append(1))
            counts.append(ran)
    out = latents(pipe, call)
    assert torch.isfinite(out).all()
    inner = [len(ran) for ran in counts]
    assert inner[1:-1] == [2] * (len(inner) - 2)
    assert [(witness.transform, witness.count) for witness in witnesses(pipe)] == [("cache-blocks", 2)]


def test_requests_in_a_row_do_not_know_of_each_other(make: Make, latents: Latents) -> None:
    pipe, call = planned(make)
    first = latents(pipe, call, seed=5)
    latents(pipe, call, seed=6)
    assert torch.equal(latents(pipe, call, seed=5), first)
    other, call = planned(make)
    latents(other, call, seed=6, num_inference_steps=3)
    assert torch.equal(latents(other, call, seed=5), first)


def test_a_request_that_raises_midway_leaves_nothing_behind(make: Make, latents: Latents) -> None:
    pipe, call = planned(make)
    expected = latents(pipe, call)
    original, calls = pipe.scheduler.step, [0]

    def failing(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise RuntimeError("stopped")
        return original(*args, **kwargs)

    pipe.scheduler.__dict__["step"] = failing
    with pytest.raises(RuntimeError, match="stopped"):
        latents(pipe, call)
    del pipe.scheduler.__dict__["step"]
    assert torch.equal(latents(pipe, call), expected)


def test_another_pipeline_with_the_same_transformer_runs_without_a_plan(make: Make, latents: Latents) -> None:
    plain, call = make()
    expected = latents(plain, call)
    pipe, _ = planned(make)
    plain.transformer = pipe.transformer
    assert not torch.equal(latents(pipe, call), expected)
    assert torch.equal(latents(plain, call), expected)


@pytest.mark.parametrize("steps", [3, 5])
def test_other_steps_run_as_without_a_plan(make: Make, latents: Latents, steps: int) -> None:
    plain, call = make()
    pipe, _ = planned(make)
    assert torch.equal(latents(pipe, call, num_inference_steps=steps), latents(plain, call, num_inference_steps=steps))


def test_guidance_in_turn_keeps_features_of_each_turn(tiny_of: Any, latents: Latents) -> None:
    def make() -> tuple[Any, dict[str, Any]]:
        pipe, call = tiny_of("flux")
        return pipe, {**call, "true_cfg_scale": 2.0}

    plain, call = make()
    pipe, _ = planned(make, full=[0, 1, 3])
    exact, cached = latents(plain, call), latents(pipe, call)
    assert [witness.detail for witness in witnesses(pipe)] == ["2 of 8 denoiser calls with cached features"]
    mixed = latents(planned(lambda: tiny_of("flux"), full=[0, 1, 3])[0], call, true_cfg_scale=1.0)
    assert (cached - exact).norm() < (mixed - exact).norm()


@pytest.mark.parametrize(("blocks", "message"), [((4, 0), "leave none to reuse"), ((1, 2, 3), "one of last ones")])
def test_refuses_blocks_that_are_not_there(tiny_of: Any, blocks: Any, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        planned(lambda: tiny_of("sd3"), blocks=blocks)


def test_refuses_a_unet(pipe: Any) -> None:
    with pytest.raises(BackendError, match="UNet2DConditionModel holds no transformer blocks"):
        follow_step_plan(pipe, steps=4, full=[0, 2], blocks=(1, 0))


@pytest.fixture
def make(tiny: Make) -> Make:
    return tiny
