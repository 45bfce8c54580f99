"""Compose one OpenVINO model of a program: parts converted once, copied in at each call, with shared work shared."""

from __future__ import annotations

from typing import Any, TypeAlias

from diffopt.backends.base import JSON, Program
from diffopt.backends.glue import split
from diffopt.backends.openvino import convert, import_openvino
from diffopt.backends.openvino_rewrites import fold_constants, narrow_constants, part_constant_rows

Key: TypeAlias = "tuple[Any, ...]"
CALL_MARK = "#"
"""Stands between the name of a part and the number of its call in the names of operations."""


def compose(program: Program) -> tuple[Any, dict[str, JSON]]:
    """Return the model and facts about it."""
    openvino = import_openvino()
    from openvino import opset15 as opset

    parts = {
        part.name: convert(part.module, part.inputs, part.input_names, part.axes()) for part in program.parts.values()
    }
    glue = split(program)
    names = tuple(f"value_{index}" for index in range(len(glue.examples)))
    model = convert(glue.module, glue.examples, names)
    parameters, results = list(model.get_parameters()), list(model.get_results())
    shared = _Shared()
    for call in glue.calls:
        sources = [
            results[value].input_value(0) if isinstance(value, int) else shared.constant(opset, value)
            for value in call.inputs
        ]
        outputs = shared.splice(call.part, parts[call.part], sources)
        for index, output in zip(call.results, outputs, strict=False):
            if index is not None:
                parameters[index].output(0).replace(output)
    inputs = parameters[: len(program.inputs)]
    for parameter, name in zip(inputs, program.input_names, strict=True):
        parameter.set_friendly_name(name)
    outputs = [opset.result(result.input_value(0)) for result in results[-glue.outputs :]]
    composed = openvino.Model(outputs, inputs, "pipeline")
    composed.validate_nodes_and_infer_types()
    narrowed, parted = 0, part_constant_rows(composed)
    if not any(_stores_int8(part) for part in parts.values()):  # folding would widen 8-bit weights for good
        fold_constants(composed)
        narrowed = narrow_constants(composed)
    facts: dict[str, JSON] = {
        "shared_operations": shared.count,
        "parted_products": parted,
        "narrowed_constants": narrowed,
        "calls": len(glue.calls),
    }
    return composed, facts


class _Shared:
    """Copies parts into one model; an operation that two copies would do on the same inputs is done once.

    Constants stay with their copies, since OpenVINO fuses a bias only into the one operation that reads it; their
    bytes are written once all the same. Every operation is named after its part and call (`unet#1/...`), so that a
    profile can tell the stages apart.
    """

    def __init__(self) -> None:
        self.count = 0
        self._calls: dict[str, int] = {}
        self._known: dict[Key, Any] = {}
        self._constants: dict[Key, Any] = {}

    def constant(self, opset: Any, value: Any) -> Any:
        key = (str(value.dtype), tuple(value.shape), value.numpy().tobytes())
        if key not in self._constants:
            self._constants[key] = opset.constant(value.numpy()).output(0)
        return self._constants[key]

    def splice(self, name: str, part: Any, sources: list[Any]) -> list[Any]:
        """Return the outputs of a copy of the part that reads from these sources."""
        copy = part.clone()
        call = self._calls[name] = self._calls.get(name, -1) + 1
        nodes, results = copy.get_ordered_ops(), copy.get_results()
        for parameter, source in zip(copy.get_parameters(), sources, strict=True):
            parameter.output(0).replace(source)
        fixed: dict[Key, Key] = {}
        for position, node in enumerate(nodes):
            kind = node.get_type_name()
            if kind in ("Parameter", "Result"):
                continue
            node.set_friendly_name(f"{name}{CALL_MARK}{call}/{node.get_friendly_name()}")
            origins = [_port(value) for value in node.input_values()]
            key = (name, position, kind, *(fixed.get(origin, origin) for origin in origins))
            if all(origin in fixed for origin in origins):
                fixed.update({_port(output): (*key, index) for index, output in enumerate(node.outputs())})
                continue
            known = self._known.setdefault(key, node)
            if known is not node:
                self.count += 1
                for output, earlier in zip(node.outputs(), known.outputs(), strict=True):
                    output.replace(earlier)
        return [result.input_value(0) for result in results]


def _stores_int8(model: Any) -> bool:
    constants = (node for node in model.get_ops() if node.get_type_name() == "Constant")
    return any(node.get_element_type().get_type_name() == "i8" for node in constants)


def _port(output: Any) -> Key:
    return output.get_node().get_name(), output.get_index()
