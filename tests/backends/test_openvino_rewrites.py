from __future__ import annotations

import numpy
import pytest

from diffopt.backends.openvino import import_openvino
from diffopt.backends.openvino_rewrites import fold_constants, part_constant_rows

openvino = import_openvino()


def guided(axis: int = 0, *, transposed: bool = True) -> object:
    """Return a model that projects a constant embedding and a given one in one batch."""
    from openvino import opset15 as opset

    rng = numpy.random.default_rng(0)
    given = opset.parameter([1, 5, 8], numpy.float32)
    empty = opset.constant(rng.standard_normal((1, 5, 8), dtype=numpy.float32))
    joined = opset.concat([empty, given], axis)
    weight = rng.standard_normal((6, 8) if transposed else (8, 6), dtype=numpy.float32)
    product = opset.matmul(joined, opset.constant(weight), False, transposed)
    return openvino.Model([opset.result(product)], [given], "guided")


def run(model: object, given: numpy.ndarray) -> numpy.ndarray:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return numpy.array(compiled([given])[0])


@pytest.mark.parametrize("transposed", [True, False])
def test_the_constant_half_is_folded_and_the_result_stays(transposed: bool) -> None:
    given = numpy.random.default_rng(1).standard_normal((1, 5, 8)).astype(numpy.float32)
    expected = run(guided(transposed=transposed), given)
    model = guided(transposed=transposed)
    assert part_constant_rows(model) == 1
    fold_constants(model)
    products = [op for op in model.get_ops() if op.get_type_name() == "MatMul"]  # type: ignore[attr-defined]
    assert [list(op.get_output_shape(0)) for op in products] == [[1, 5, 6]]
    assert numpy.allclose(run(model, given), expected, atol=1e-6)


def test_what_is_joined_along_another_axis_is_left_alone() -> None:
    assert part_constant_rows(guided(axis=1)) == 0
