"""The operations of the dialect: JSON as attributes, what verifies, what is asked of a module."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import BytesAttr, DenseArrayBase, ModuleOp, UnitAttr, i64
from xdsl.utils.exceptions import VerifyException

from diffopt.ir.attributes import from_attribute, in_order, to_attribute
from diffopt.ir.description import JSON
from diffopt.ir.dialect import components, denoiser_of, loops, scheduler_of, steps_of

VALUES: st.SearchStrategy[JSON] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


def _same(one: JSON, two: JSON) -> bool:
    return repr(one) == repr(two)  # tells 1 from 1.0 and True, and 0.0 from -0.0


@given(VALUES)
def test_json_reads_back_from_an_attribute_with_its_types(value: JSON) -> None:
    assert _same(from_attribute(to_attribute(value)), value)


@pytest.mark.parametrize("value", [10**30, -(2**63), 2**63, -math.inf, "\ud800", {"\\U000000e9": 1}, {"é": 2, "\\": 3}])
def test_edges_of_json_read_back(value: JSON) -> None:
    assert _same(from_attribute(to_attribute(value)), value)


def test_none_is_unit() -> None:
    assert to_attribute(None) == UnitAttr()


def test_an_attribute_that_is_no_json_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="no JSON for attribute array<i64: 1>"):
        from_attribute(DenseArrayBase.from_list(i64, [1]))


def test_in_order_sorts_at_every_depth() -> None:
    one = to_attribute({"b": [{"y": 1, "x": 2}], "a": {"d": 1, "c": 2}})
    assert str(in_order(one)) == "{a = {c = 2 : i64, d = 1 : i64}, b = [{x = 2 : i64, y = 1 : i64}]}"


def test_components_stand_in_the_order_of_the_text(standard_module: ModuleOp) -> None:
    assert list(components(standard_module)) == ["pipeline", "scheduler", "text_encoder", "tokenizer", "unet", "vae"]
    assert denoiser_of(standard_module).sym_name.data == "unet"
    assert scheduler_of(standard_module).class_name.data == "diffusers.DDIMScheduler"
    assert steps_of(standard_module) == 50


def test_transforms_stand_in_order_of_application(standard_module: ModuleOp) -> None:
    unet = denoiser_of(standard_module.clone())
    unet.add_transform("quantize", {"scheme": "int8-weights"}, "quantize")
    unet.add_transform("export", {"backend": "openvino", "é": [1]}, "export")
    assert [t.transform.data for t in unet.transforms] == ["quantize", "export"]
    assert unet.transforms[1].arguments == {"backend": "openvino", "é": [1]}


def test_values_are_a_copy(standard_module: ModuleOp) -> None:
    components(standard_module)["unet"].config["sample_size"] = 1
    assert components(standard_module)["unet"].config["sample_size"] == 16


def test_a_component_holds_only_transforms(standard_module: ModuleOp) -> None:
    module = standard_module.clone()
    loop = loops(module)[0]
    step = loop.body.block.first_op
    assert step is not None
    loop.body.block.detach_op(step)
    denoiser_of(module).body.block.add_op(step)
    with pytest.raises(VerifyException, match="a component holds only transforms, not diffusion"):
        denoiser_of(module).verify_()


def test_an_attribute_must_be_json(standard_module: ModuleOp) -> None:
    unet = denoiser_of(standard_module.clone())
    unet.attributes["odd"] = DenseArrayBase.from_list(i64, [1])
    with pytest.raises(VerifyException, match="no JSON"):
        unet.verify_()
    unet.attributes["odd"] = BytesAttr(b"\xff")
    with pytest.raises(VerifyException, match="no text"):
        unet.verify_()


def test_a_loop_knows_its_parts(standard_module: ModuleOp) -> None:
    loop = loops(standard_module.clone())[0]
    assert loop.bounds == (0, 50)
    assert loop.guide is not None
    assert [p.result for p in loop.predicts] == [loop.guide.uncond, loop.guide.cond]
    assert loop.predicts[0].full_steps is None
    loop.predicts[0].set_full_steps([0, 5], 1)
    assert loop.predicts[0].full_steps == (0, 5)
