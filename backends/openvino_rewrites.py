"""Rewrites of a converted OpenVINO model that change how fast it runs, not what it computes."""

from __future__ import annotations

from typing import Any

NARROW = 32
"""Rows shorter than this leave vector registers half empty."""


def flatten_group_norms(model: Any) -> int:
    """Let group norms, and the activation behind them, work on rows of height x width; return how many do now.

    OpenVINO's generated code for the affine half works row by row: on a 4x4 picture it fills a quarter of a register,
    and takes longer than on one of 16x16 (seen with 2026.4 on AVX-512).
    """
    from openvino import opset15 as opset

    changed = 0
    for norm in model.get_ordered_ops():
        if norm.get_type_name() != "GroupNormalization":
            continue
        shape = norm.get_input_partial_shape(0)
        if len(shape) != 4 or any(shape[axis].is_dynamic for axis in (1, 2, 3)) or shape[3].get_length() >= NARROW:
            continue
        picture = [0, *(shape[axis].get_length() for axis in (1, 2, 3))]
        last = norm
        readers = list(norm.output(0).get_target_inputs())
        if len(readers) == 1 and readers[0].get_node().get_type_name() == "Swish":
            last = readers[0].get_node()
        data, scale, bias = norm.input_values()
        flat = opset.reshape(data, [0, picture[1], picture[2] * picture[3]], special_zero=True)
        attributes = norm.get_attributes()
        out = opset.group_normalization(flat, scale, bias, attributes["num_groups"], attributes["epsilon"])
        if last is not norm:
            out = opset.swish(out)
        restored = opset.reshape(out, picture, special_zero=True)
        for reader in list(last.output(0).get_target_inputs()):
            reader.replace_source_output(restored.output(0))
        changed += 1
    model.validate_nodes_and_infer_types()
    return changed


def part_constant_rows(model: Any) -> int:
    """Multiply what is the same in every call apart from what is not, so that it can be folded; return how many are now.

    A guided batch joins the empty prompt's embedding, a constant, with the prompt's: half of what each cross-attention
    projects of it need not be computed.
    """
    from openvino import opset15 as opset

    changed = 0
    for product in model.get_ordered_ops():
        if product.get_type_name() != "MatMul":
            continue
        joined, weight = (value.get_node() for value in product.input_values())
        if joined.get_type_name() != "Concat" or not _is_constant(weight) or len(weight.shape) != 2:
            continue
        shape, parts = joined.get_output_partial_shape(0), joined.input_values()
        axis = joined.get_attributes()["axis"]
        fixed = [_is_constant(part.get_node()) for part in parts]
        if len(shape) < 3 or axis not in (0, -len(shape)) or all(fixed) or not any(fixed):
            continue
        attributes = product.get_attributes()
        if attributes["transpose_a"]:
            continue
        products = [
            opset.matmul(part, product.input_value(1), False, attributes["transpose_b"]).output(0) for part in parts
        ]
        together = opset.concat(products, 0)
        together.set_friendly_name(product.get_friendly_name())
        for part in products:
            part.get_node().set_friendly_name(product.get_friendly_name() + "/part")
        for reader in list(product.output(0).get_target_inputs()):
            reader.replace_source_output(together.output(0))
        changed += 1
    model.validate_nodes_and_infer_types()
    return changed


def _is_constant(node: Any) -> bool:
    """Tell whether a node is a constant, perhaps one in another type."""
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def fold_constants(model: Any) -> None:
    """Compute what depends on no input: time embeddings of fixed timesteps, and the arithmetic on sizes."""
    from openvino.passes import ConstantFolding, Manager

    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(model)


def narrow_constants(model: Any) -> int:
    """Add constants that are the same for every picture of a batch as one row; return how many.

    A time embedding is computed for each half of a guided batch. As one row it can be fused into a convolution.
    """
    import numpy
    from openvino import opset15 as opset

    changed = 0
    for add in model.get_ordered_ops():
        if add.get_type_name() != "Add":
            continue
        for port in add.inputs():
            constant = port.get_source_output().get_node()
            if constant.get_type_name() != "Constant" or len(constant.shape) < 2 or constant.shape[0] < 2:
                continue
            values = constant.data
            if constant.shape[0] != add.get_output_partial_shape(0)[0] or not (values == values[:1]).all():
                continue
            port.replace_source_output(opset.constant(numpy.ascontiguousarray(values[:1])).output(0))
            changed += 1
    model.validate_nodes_and_infer_types()
    return changed
