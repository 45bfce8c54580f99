"""Compose one ONNX model of a program: parts exported once, their operations copied in at each call."""

from __future__ import annotations

from typing import Any

from diffopt.backends.base import JSON, BackendError, Program
from diffopt.backends.glue import split
from diffopt.backends.onnx_export import convert


def compose(program: Program, *, opset: int | None = None) -> tuple[Any, dict[str, JSON]]:
    """Return the model and facts about it."""
    import onnx
    from onnx import helper, numpy_helper

    parts = {
        part.name: convert(part.module, part.inputs, part.input_names, part.axes(), opset=opset)
        for part in program.parts.values()
    }
    glue = split(program)
    names = tuple(f"value_{index}" for index in range(len(glue.examples)))
    model = convert(glue.module, glue.examples, names, opset=opset)
    inputs, outputs = [value.name for value in model.graph.input], [value.name for value in model.graph.output]
    nodes, initializers = list(model.graph.node), list(model.graph.initializer)
    for name, part in parts.items():
        for weight in part.graph.initializer:
            weight.name = f"{name}.{weight.name}"
            initializers.append(weight)
    for index, call in enumerate(glue.calls):
        part, arguments = parts[call.part], list[str]()
        for position, value in enumerate(call.inputs):
            if isinstance(value, int):
                arguments.append(outputs[value])
                continue
            arguments.append(f"call{index}.constant{position}")
            initializers.append(numpy_helper.from_array(value.numpy(), arguments[-1]))
        results = [None if result is None else inputs[result] for result in call.results]
        nodes += _copied(part, call.part, f"call{index}", arguments, results)
    graph = helper.make_graph(
        _sorted(nodes, {*inputs[: len(program.inputs)], *(weight.name for weight in initializers), ""}),
        "pipeline",
        list(model.graph.input[: len(program.inputs)]),
        list(model.graph.output[-glue.outputs :]),
        initializers,
    )
    composed = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    composed = onnx.shape_inference.infer_shapes(composed)
    return composed, {"operations": len(graph.node), "calls": len(glue.calls)}


def _copied(part: Any, name: str, prefix: str, arguments: list[str], results: list[str | None]) -> list[Any]:
    """Return copies of a part's operations that read these arguments and write these results."""
    from onnx import AttributeProto, NodeProto

    if part.functions:
        raise BackendError(f"{name} holds ONNX functions, which cannot be copied into one model yet")
    naming = {"": ""} | {weight.name.removeprefix(f"{name}."): weight.name for weight in part.graph.initializer}
    naming |= {value.name: argument for value, argument in zip(part.graph.input, arguments, strict=True)}
    for value, result in zip(part.graph.output, results, strict=False):
        if result is not None:
            naming[value.name] = result
    copies = []
    for node in part.graph.node:
        if any(attribute.type == AttributeProto.GRAPH for attribute in node.attribute):
            raise BackendError(f"{name} holds control flow, which cannot be copied into one model yet")
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{prefix}.{node.name}"
        for values in (copy.input, copy.output):
            values[:] = [naming.get(value, f"{prefix}.{value}") for value in values]
        copies.append(copy)
    return copies


def _sorted(nodes: list[Any], known: set[str]) -> list[Any]:
    """Return the operations in an order in which each finds its inputs made."""
    waiting: dict[str, list[int]] = {}
    missing = [0] * len(nodes)
    for index, node in enumerate(nodes):
        for value in set(node.input) - known:
            waiting.setdefault(value, []).append(index)
            missing[index] += 1
    ready, ordered = [index for index, count in enumerate(missing) if not count], []
    while ready:
        node = nodes[ready.pop(0)]
        ordered.append(node)
        for value in node.output:
            for index in waiting.pop(value, []):
                missing[index] -= 1
                if not missing[index]:
                    ready.append(index)
    if len(ordered) != len(nodes):
        raise BackendError("the program's ONNX operations do not fit together", "this is a bug in diffopt")
    return ordered
