"""Say in an ONNX graph what computes in 16 bits: TensorRT 11 takes precision from nowhere else.

Matrix products and convolutions compute in the lower type; sums, norms, softmax and what grows or divides stay in float32;
all other operations go along with what reaches them. Inputs and outputs of the graph keep their types.
"""

from __future__ import annotations

from typing import Any

from diffopt.backends.base import BackendError

LOWER = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Attention"})
KEPT = frozenset(
    {
        "LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization", "SimplifiedLayerNormalization",
        "BatchNormalization", "Softmax", "LogSoftmax", "ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "ReduceProd",
        "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "Div", "Sin", "Cos", "CumSum", "Range", "Einsum", "Resize", "Mod",
        "Erf", "Softplus", "DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear",
    }
)  # fmt: skip
TYPES = {"f16": "FLOAT16", "bf16": "BFLOAT16"}


def autocast(model: Any, precision: str) -> tuple[Any, dict[str, int]]:
    """Return a copy of a float32 model with its casts written in, and how many operations compute in which type.

    Raises BackendError if the graph holds control flow, whose insides this does not follow.
    """
    import onnx
    from onnx import AttributeProto, TensorProto, helper

    low = int(getattr(TensorProto, TYPES[precision]))
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    types = _types(made)
    weights = {weight.name: weight for weight in graph.initializer}
    casts: dict[tuple[str, int], str] = {}
    nodes: list[Any] = []
    counts = {"lower": 0, "float32": 0, "along": 0}

    def as_type(name: str, wanted: int) -> str:
        if types.get(name) == wanted or types.get(name) not in (low, TensorProto.FLOAT):
            return name
        key = (name, wanted)
        if key not in casts:
            casts[key] = f"{name}.{helper.tensor_dtype_to_string(wanted).rpartition('.')[2].lower()}"
            types[casts[key]] = wanted
            if name in weights:
                graph.initializer.append(_converted(weights[name], wanted, casts[key]))
            else:
                nodes.append(helper.make_node("Cast", [name], [casts[key]], f"cast.{casts[key]}", to=wanted))
        return casts[key]

    for node in graph.node:
        if any(attribute.type == AttributeProto.GRAPH for attribute in node.attribute):
            raise BackendError(f"{node.op_type} holds a graph of its own: its precision cannot be lowered yet")
        floats = [name for name in node.input if types.get(name) in (low, TensorProto.FLOAT)]
        moving = [name for name in floats if name not in weights]
        if node.op_type in LOWER:
            wanted, kind = low, "lower"
        elif node.op_type in KEPT or not moving or any(types[name] == TensorProto.FLOAT for name in moving):
            wanted, kind = int(TensorProto.FLOAT), "float32"
        else:
            wanted, kind = low, "along"
        if not floats and node.op_type not in LOWER:
            nodes.append(node)
            continue
        counts[kind] += 1
        node.input[:] = [as_type(name, wanted) for name in node.input]
        for name in node.output:
            if types.get(name) == TensorProto.FLOAT and node.op_type not in ("Cast", "Shape"):
                types[name] = wanted
        nodes.append(node)
    for output in graph.output:
        if types.get(output.name) == low:
            inner = f"{output.name}.inner"
            for node in nodes:
                node.output[:] = [inner if name == output.name else name for name in node.output]
                node.input[:] = [inner if name == output.name else name for name in node.input]
            nodes.append(helper.make_node("Cast", [inner], [output.name], f"cast.{output.name}", to=TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unused(graph)
    del graph.value_info[:]
    return made, counts


def _types(model: Any) -> dict[str, int]:
    """Return the element type of every value of a graph."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    known = {value.name: value.type.tensor_type.elem_type for value in [*graph.input, *graph.value_info, *graph.output]}
    return known | {weight.name: weight.data_type for weight in graph.initializer}


def _converted(weight: Any, wanted: int, name: str) -> Any:
    from onnx import helper, numpy_helper

    values = numpy_helper.to_array(weight).astype(helper.tensor_dtype_to_np_dtype(wanted))
    return numpy_helper.from_array(values, name)


def _drop_unused(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
