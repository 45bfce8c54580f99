from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffopt.backends import BackendError
from diffopt.backends.runtime import follow_step_plan, witnesses
from diffopt.backends.runtime.feature_cache import FullPass, ShallowPass

Picture = Callable[..., torch.Tensor]


def details(pipe: Any) -> list[tuple[str, int]]:
    return [(witness.transform, witness.count) for witness in witnesses(pipe)]


def test_a_plan_of_full_guided_steps_changes_nothing(pipe: Any, picture: Picture) -> None:
    plain = picture(pipe)
    follow_step_plan(pipe, steps=4, full=range(4), guided=range(4))
    assert torch.equal(picture(pipe), plain)


def test_unguided_steps_are_the_conditional_half_alone(pipe: Any, picture: Picture) -> None:
    conditional = picture(pipe, guidance_scale=1.0)
    guided = picture(pipe)
    follow_step_plan(pipe, steps=4, guided=())
    assert torch.allclose(picture(pipe), conditional, atol=1e-5)
    assert not torch.allclose(guided, conditional, atol=1e-3)
    assert details(pipe) == [("guidance-window", 4)]


def test_the_denoiser_sees_half_the_batch_without_guidance(pipe: Any, picture: Picture) -> None:
    sizes: list[int] = []
    pipe.unet.conv_in.register_forward_hook(lambda _, inputs, output: sizes.append(len(inputs[0])))
    follow_step_plan(pipe, steps=4, guided=range(2))
    picture(pipe, ["a red circle", "a"])
    assert sizes == [4, 4, 2, 2]


def test_cached_steps_skip_the_deep_blocks(pipe: Any, picture: Picture) -> None:
    deep: list[int] = []
    pipe.unet.mid_block.register_forward_hook(lambda *_: deep.append(1))
    plain = picture(pipe)
    deep.clear()
    follow_step_plan(pipe, steps=4, full=range(0, 4, 2))
    cached = picture(pipe)
    assert len(deep) == 2
    assert not torch.equal(cached, plain)
    assert torch.isfinite(cached).all()
    assert details(pipe) == [("cache-features", 2)]


@given(branch=st.integers(0, 3), batch=st.integers(1, 3), timestep=st.integers(0, 999))
def test_a_shallow_pass_on_fresh_features_is_the_full_pass(
    shared_pipe: Any, branch: int, batch: int, timestep: int
) -> None:
    inputs = (torch.randn(batch, 4, 12, 8), torch.tensor(timestep), torch.randn(batch, 11, 32))
    with torch.no_grad():
        (plain,) = shared_pipe.unet(*inputs, return_dict=False)
        out, deep = FullPass(shared_pipe.unet, branch)(*inputs)
        (shallow,) = ShallowPass(shared_pipe.unet, branch)(*inputs, deep)
    assert torch.equal(out, plain)
    assert torch.allclose(shallow, plain, atol=1e-5)


def test_cache_and_window_work_together(pipe: Any, picture: Picture) -> None:
    follow_step_plan(pipe, steps=4, full=[0, 2], guided=range(1), branch=1)
    assert torch.isfinite(picture(pipe)).all()
    assert details(pipe) == [("cache-features", 2), ("guidance-window", 3)]


def test_requests_in_a_row_do_not_know_of_each_other(load: Callable[[], Any], picture: Picture) -> None:
    def planned() -> Any:
        return follow_step_plan(load(), steps=4, full=[0, 2], guided=range(3))

    pipe = planned()
    for prompt in ("a red circle", "a blue square"):
        assert torch.equal(picture(pipe, prompt, seed=5), picture(planned(), prompt, seed=5))


def test_a_request_that_raises_midway_leaves_nothing_behind(pipe: Any, picture: Picture) -> None:
    def stop(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            raise RuntimeError("stopped")
        return values

    follow_step_plan(pipe, steps=4, full=[0, 2], guided=range(3))
    expected = picture(pipe)
    with pytest.raises(RuntimeError, match="stopped"):
        picture(pipe, "a", callback_on_step_end=stop)
    assert torch.equal(picture(pipe), expected)


@pytest.mark.parametrize("steps", [3, 5])
def test_requests_of_other_steps_run_as_without_a_plan(
    pipe: Any, picture: Picture, caplog: pytest.LogCaptureFixture, steps: int
) -> None:
    plain = picture(pipe, num_inference_steps=steps)
    follow_step_plan(pipe, steps=4, full=[0, 2], guided=range(3))
    assert torch.equal(picture(pipe, num_inference_steps=steps), plain)
    picture(pipe, num_inference_steps=steps)
    assert [record.getMessage() for record in caplog.records if record.name == "diffopt"] == [
        f"the step plan is off: made for 4 steps, asked for {steps}"
    ]


def test_batches_of_other_sizes_follow_the_plan_too(pipe: Any, picture: Picture) -> None:
    follow_step_plan(pipe, steps=4, full=[0, 2], guided=range(3))
    alone = picture(pipe, "a red circle", seed=3)
    assert picture(pipe, ["a red circle", "a", "a blue square"]).shape[0] == 3
    assert torch.equal(picture(pipe, "a red circle", seed=3), alone)


def test_the_denoiser_keeps_its_face(pipe: Any) -> None:
    unet = pipe.unet
    follow_step_plan(pipe, component="denoiser", steps=4, full=[0, 2])
    assert pipe.unet is unet
    sample, encoded = torch.randn(2, 4, 12, 8), torch.randn(2, 11, 32)
    with torch.no_grad():
        assert unet(sample, 5, encoded).sample.shape == unet(sample, 5, encoded, return_dict=False)[0].shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"full": [1, 2]}, "step 0 must be computed in full"),
        ({"full": [0, 4]}, "no step 4 among 4"),
        ({"guided": [-1]}, "no step -1"),
        ({"full": [0], "branch": 4}, "not one of the UNet's 4 up layers"),
        ({"component": "transformer"}, "no component 'transformer'"),
    ],
)
def test_refuses_a_plan_that_does_not_fit(pipe: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        follow_step_plan(pipe, steps=4, **arguments)


def test_refuses_two_plans_on_one_denoiser(pipe: Any) -> None:
    follow_step_plan(pipe, steps=4, guided=[0])
    with pytest.raises(BackendError, match="follows a step plan already"):
        follow_step_plan(pipe, steps=4, full=[0, 2])


@pytest.mark.parametrize("reuse", ["difference", "prediction"])
def test_the_unconditional_half_is_computed_at_fresh_steps_only(pipe: Any, picture: Picture, reuse: str) -> None:
    sizes: list[int] = []
    pipe.unet.conv_in.register_forward_hook(lambda _, inputs, output: sizes.append(len(inputs[0])))
    follow_step_plan(pipe, steps=4, fresh=[0, 2], reuse=reuse)
    assert torch.isfinite(picture(pipe)).all()
    assert sizes == [2, 1, 2, 1]
    assert details(pipe) == [("reuse-unconditional", 2)]


def test_the_unconditional_half_computed_at_every_step_changes_nothing(pipe: Any, picture: Picture) -> None:
    plain = picture(pipe)
    follow_step_plan(pipe, steps=4, fresh=range(4))
    assert torch.equal(picture(pipe), plain)


def test_a_reused_unconditional_half_does_not_outlive_its_request(load: Callable[[], Any], picture: Picture) -> None:
    def planned() -> Any:
        return follow_step_plan(load(), steps=4, fresh=[0, 2], full=[0, 3], guided=range(3), order=1)

    pipe = planned()
    picture(pipe, "a blue square", seed=1)
    assert torch.equal(picture(pipe, seed=5), picture(planned(), seed=5))


def test_halves_apart_are_the_halves_together(pipe: Any, picture: Picture) -> None:
    plain = picture(pipe)
    sizes: list[int] = []
    pipe.unet.conv_in.register_forward_hook(lambda _, inputs, output: sizes.append(len(inputs[0])))
    follow_step_plan(pipe, steps=4, apart=True)
    assert torch.allclose(picture(pipe), plain, atol=1e-5)
    assert sizes == [1] * 8
    assert details(pipe) == [("split-guidance-batch", 4)]


def test_halves_apart_have_features_of_their_own(load: Callable[[], Any], picture: Picture) -> None:
    together = picture(follow_step_plan(load(), steps=4, full=[0, 2]))
    apart = picture(follow_step_plan(load(), steps=4, full=[0, 2], apart=True))
    assert torch.allclose(apart, together, atol=1e-5)


def test_a_forecast_is_not_plain_reuse(load: Callable[[], Any], picture: Picture) -> None:
    plain = picture(follow_step_plan(load(), steps=6, full=[0, 1, 3, 5]), num_inference_steps=6)
    pipe = follow_step_plan(load(), steps=6, full=[0, 1, 3, 5], order=1)
    assert not torch.allclose(picture(pipe, num_inference_steps=6), plain, atol=1e-4)
    assert details(pipe) == [("forecast-features", 2)]


def test_refuses_to_reuse_what_no_step_computed(pipe: Any) -> None:
    with pytest.raises(BackendError, match="step 0 must compute the unconditional half"):
        follow_step_plan(pipe, steps=4, fresh=[1])
    with pytest.raises(BackendError, match="no 'half'"):
        follow_step_plan(pipe, steps=4, reuse="half")
