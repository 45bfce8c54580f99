from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffopt.backends import BackendError
from diffopt.backends.openvino import OpenVinoBuilder
from diffopt.backends.runtime import compile_component, export, follow_step_plan, quantize, witnesses
from diffopt.backends.runtime.attachment import attachment
from diffopt.backends.runtime.engine_key import weights_hash

Picture = Callable[..., torch.Tensor]
COMPONENTS = ("text_encoder", "denoiser", "vae")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One engine folder for the module: engines are found again, not built again."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture
def exported(load: Callable[[], Any], engines: Path) -> Any:
    pipe = load()
    for component in COMPONENTS:
        export(pipe, component, engines=engines)
    return pipe


def details(pipe: Any) -> list[str]:
    return [witness.detail for witness in witnesses(pipe) if witness.transform != "engine-files"]


def test_engines_make_the_pictures_torch_makes(load: Callable[[], Any], exported: Any, picture: Picture) -> None:
    assert torch.allclose(picture(exported), picture(load()), atol=1e-4)
    assert details(exported) == [
        "text_encoder: 2 engine calls, 0 in torch",
        "unet: 4 engine calls, 0 in torch",
        "vae: 1 engine calls, 0 in torch",
    ]


def test_engines_take_any_batch_and_calls_without_guidance(
    load: Callable[[], Any], exported: Any, picture: Picture
) -> None:
    prompts = ["a red circle", "a", "a blue square"]
    assert torch.allclose(picture(exported, prompts), picture(load(), prompts), atol=1e-4)
    assert torch.allclose(picture(exported, guidance_scale=1.0), picture(load(), guidance_scale=1.0), atol=1e-4)
    assert not any("in torch" in detail and " 0 in torch" not in detail for detail in details(exported))


def test_other_sizes_run_in_torch_and_say_so_once(
    load: Callable[[], Any], exported: Any, picture: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    size = {"height": 32, "width": 16}
    assert torch.allclose(picture(exported, **size), picture(load(), **size), atol=1e-4)
    assert details(exported)[1:] == ["unet: 0 engine calls, 4 in torch", "vae: 0 engine calls, 1 in torch"]
    said = [record.getMessage() for record in caplog.records if record.name == "diffopt"]
    assert len(said) == 2
    assert said[0].startswith("unet runs in torch instead of its engine: sample is of size (2, 4, 16, 8)")


def test_sizes_that_were_asked_for_get_engines_of_their_own(
    load: Callable[[], Any], engines: Path, picture: Picture
) -> None:
    pipe, size = load(), {"height": 32, "width": 16}
    plan: dict[str, Any] = {"steps": 4, "guided": range(3)}
    follow_step_plan(pipe, **plan)
    for component in COMPONENTS:
        export(pipe, component, engines=engines, sizes=[(32, 16)])
    plain = follow_step_plan(load(), **plan)
    for given in ({}, size):
        assert torch.allclose(picture(pipe, **given), picture(plain, **given), atol=1e-4)
    assert all(detail.endswith(", 0 in torch") for detail in details(pipe) if "engine calls" in detail)
    # Of the text encoder there is one: its inputs are the same at every size.
    assert len(attachment(pipe).engines) == 1 + 2 + 2


def test_calls_outside_are_refused_where_the_user_wants_no_torch(
    load: Callable[[], Any], engines: Path, picture: Picture
) -> None:
    pipe = export(load(), "unet", engines=engines)
    attachment(pipe).outside = "raise"
    assert torch.allclose(picture(pipe), picture(load()), atol=1e-4)
    with pytest.raises(BackendError, match="unet has a call that is not for its engine: sample is of size"):
        picture(pipe, height=32, width=16)


def test_components_keep_their_face(exported: Any) -> None:
    unet, vae, text = exported.unet, exported.vae, exported.text_encoder
    sample, encoded, ids = torch.randn(2, 4, 12, 8), torch.randn(2, 11, 32), torch.zeros(1, 11, dtype=torch.long)
    assert (type(unet).__name__, unet.dtype, unet.device.type) == ("UNet2DConditionModel", torch.float32, "cpu")
    (plain,) = unet(sample, torch.tensor(7), encoder_hidden_states=encoded, return_dict=False)
    assert torch.equal(unet(sample, torch.tensor(7), encoded, class_labels=None).sample, plain)
    assert torch.equal(vae.decode(sample).sample, vae.decode(sample, False)[0])
    assert text(ids, attention_mask=None).last_hidden_state.shape == text(ids)[0].shape == (1, 11, 32)


def test_extra_conditioning_runs_in_torch(load: Callable[[], Any], exported: Any) -> None:
    inputs = (torch.randn(2, 4, 12, 8), torch.tensor(7), torch.randn(2, 11, 32))
    extra = {"mid_block_additional_residual": torch.ones(2, 64, 6, 4)}
    extra["down_block_additional_residuals"] = tuple(  # type: ignore[assignment]
        torch.zeros(2, *shape) for shape in ((32, 12, 8), (32, 12, 8), (32, 6, 4), (64, 6, 4))
    )
    with torch.no_grad():
        assert torch.equal(exported.unet(*inputs, **extra).sample, load().unet(*inputs, **extra).sample)
    assert details(exported)[1] == "unet: 0 engine calls, 1 in torch"


@pytest.mark.parametrize("backend", ["openvino", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def test_a_step_plan_survives_export(load: Callable[[], Any], engines: Path, picture: Picture, backend: str) -> None:
    plan: dict[str, Any] = {"steps": 4, "full": [0, 2], "guided": range(3), "branch": 1}
    expected = picture(follow_step_plan(load(), **plan))
    pipe = export(follow_step_plan(load(), **plan), "unet", backend=backend, engines=engines)
    assert torch.allclose(picture(pipe), expected, atol=1e-4)
    assert details(pipe) == [
        "2 of 4 denoiser calls with cached features",
        "1 of 4 denoiser calls without the unconditional half",
        "unet: 4 engine calls, 0 in torch",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "plan",
    [
        {"full": range(3), "cross_attention": True},
        {"full": [0, 1, 3], "order": 1, "fresh": [0, 2], "apart": True},
    ],
)
def test_every_kind_of_plan_survives_export(
    load: Callable[[], Any], engines: Path, picture: Picture, plan: dict[str, Any]
) -> None:
    expected = picture(follow_step_plan(load(), steps=4, **plan))
    pipe = export(follow_step_plan(load(), steps=4, **plan), "unet", engines=engines)
    assert torch.allclose(picture(pipe), expected, atol=1e-4)
    assert details(pipe)[-1].endswith("engine calls, 0 in torch")


def test_plans_of_other_schedules_share_engines_and_others_do_not(
    load: Callable[[], Any], engines: Path, picture: Picture
) -> None:
    def made(**plan: Any) -> tuple[list[str], torch.Tensor]:
        pipe = export(follow_step_plan(load(), **plan), "unet", engines=engines)
        images = picture(pipe, num_inference_steps=plan["steps"])
        assert torch.allclose(
            images, picture(follow_step_plan(load(), **plan), num_inference_steps=plan["steps"]), atol=1e-4
        )
        return attachment(pipe).engines, images

    every_other = made(steps=4, full=range(0, 4, 2))
    every_third = made(steps=5, full=range(0, 5, 3), guided=range(3))
    assert every_other[0] == every_third[0]
    assert len(every_other[0]) == 2
    assert not set(made(steps=4, full=range(0, 4, 2), branch=1)[0]) & set(every_other[0])
    assert made(steps=4, guided=range(2))[0] == made(steps=3, guided=range(1))[0]


def test_quantized_weights_survive_export(load: Callable[[], Any], engines: Path, picture: Picture) -> None:
    expected = picture(quantize(load(), "unet"))
    before = set(engines.iterdir())
    pipe = export(quantize(load(), "unet"), "unet", engines=engines)
    assert torch.allclose(picture(pipe), expected, atol=1e-4)
    (made,) = set(engines.iterdir()) - before
    facts = json.loads((made / "engine.json").read_text())["facts"]
    assert facts["int8_constants"] == int(details(pipe)[0].split()[1])


def test_lower_precision_is_close(load: Callable[[], Any], engines: Path, picture: Picture) -> None:
    pipe = export(load(), "unet", precision="bf16", engines=engines)
    error = (picture(pipe) - picture(load())).abs().max()
    assert 0 < error < 0.1


def test_a_damaged_engine_is_built_again(load: Callable[[], Any], tmp_path: Path, picture: Picture) -> None:
    expected = picture(export(load(), "vae", engines=tmp_path))
    (weights,) = tmp_path.glob("*/model.bin")
    weights.write_bytes(weights.read_bytes()[:-8])
    assert torch.equal(picture(export(load(), "vae", engines=tmp_path)), expected)


def test_other_weights_get_another_engine(load: Callable[[], Any], tmp_path: Path, picture: Picture) -> None:
    export(load(), "vae", engines=tmp_path)
    pipe = load()
    with torch.no_grad():
        pipe.vae.decoder.conv_out.weight.mul_(0.5)
    expected = picture(pipe)
    assert torch.allclose(picture(export(pipe, "vae", engines=tmp_path)), expected, atol=1e-4)
    assert len(list(tmp_path.iterdir())) == 2


def freed(pipe: Any) -> Any:
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    return pipe


def adapted(strength: float) -> Callable[[Any], Any]:
    def change(pipe: Any) -> Any:
        torch.manual_seed(0)
        layers = pytest.importorskip("peft").LoraConfig(r=2, target_modules=["to_v"], init_lora_weights=False)
        pipe.unet.add_adapter(layers, "one")
        pipe.set_adapters(["one"], adapter_weights=[strength])
        return pipe

    return change


def test_strengths_of_adapters_get_engines_of_their_own(
    load: Callable[[], Any], engines: Path, picture: Picture
) -> None:
    made = {strength: export(adapted(strength)(load()), "unet", engines=engines) for strength in (1.0, 8.0)}
    for strength, pipe in made.items():
        assert torch.allclose(picture(pipe), picture(adapted(strength)(load())), atol=1e-4)
    assert attachment(made[1.0]).engines != attachment(made[8.0]).engines


def test_what_is_set_beside_the_weights_changes_the_key(pipe: Any) -> None:
    plain = weights_hash(pipe.unet), weights_hash(pipe.vae)
    freed(pipe).vae.enable_tiling()
    assert not set(plain) & {weights_hash(pipe.unet), weights_hash(pipe.vae)}


def test_an_engine_that_a_backend_reads_wrongly_is_refused(
    load: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenVinoBuilder, "build", lambda *given: {"relative_l2_error": 0.2})
    with pytest.raises(BackendError, match=r"vae: the engine is off by 20.0% from torch"):
        export(load(), "vae", engines=tmp_path)
    assert not list(tmp_path.glob("*/engine.json"))


def test_what_a_call_is_given_beside_tensors_gets_another_engine(
    load: Callable[[], Any], engines: Path, picture: Picture
) -> None:
    named = []
    for scale in (1.0, 0.0):
        given: dict[str, Any] = {"cross_attention_kwargs": {"scale": scale}}
        pipe = export(adapted(1.0)(load()), "unet", engines=engines, arguments=given)
        assert torch.allclose(picture(pipe, **given), picture(adapted(1.0)(load()), **given), atol=1e-4)
        named.append(attachment(pipe).engines)
    assert named[0] != named[1]


def test_requests_leave_the_key_of_an_engine_as_it_is(pipe: Any, picture: Picture) -> None:
    before = [weights_hash(part) for part in (pipe.unet, pipe.text_encoder, pipe.vae)]
    picture(pipe)
    assert [weights_hash(part) for part in (pipe.unet, pipe.text_encoder, pipe.vae)] == before


@pytest.mark.slow
def test_onnxruntime_engines_make_the_same_pictures(load: Callable[[], Any], engines: Path, picture: Picture) -> None:
    pipe = load()
    for component in COMPONENTS:
        export(pipe, component, backend="onnxruntime", engines=engines)
    for arguments in ({}, {"guidance_scale": 1.0}):
        assert torch.allclose(picture(pipe, **arguments), picture(load(), **arguments), atol=1e-4)
    assert details(pipe)[1] == "unet: 8 engine calls, 0 in torch"


def test_onnxruntime_keeps_to_the_processors_that_the_process_has(load: Callable[[], Any], engines: Path) -> None:
    kept = export(load(), "unet", backend="onnxruntime", engines=engines)
    assert attachment(kept).engines
    bound = {frozenset(os.sched_getaffinity(int(entry))) for entry in os.listdir("/proc/self/task")}
    assert bound == {frozenset(os.sched_getaffinity(0))}


@pytest.mark.parametrize("earlier", ["export", "compile"])
def test_refuses_what_has_no_torch_code_left(load: Callable[[], Any], engines: Path, earlier: str) -> None:
    pipe = load()
    _ = export(pipe, "vae", engines=engines) if earlier == "export" else compile_component(pipe, "vae")
    with pytest.raises(BackendError, match=f"{earlier} was applied already"):
        export(pipe, "vae", engines=engines)
    with pytest.raises(BackendError, match=f"quantize cannot follow {earlier}"):
        quantize(pipe, "vae")


def test_refuses_a_pipeline_in_half_precision(pipe: Any, tmp_path: Path) -> None:
    pipe.unet.half()
    with pytest.raises(BackendError, match="load the pipeline in float32"):
        export(pipe, "unet", engines=tmp_path)
