"""A program as data: its calls of parts and the tensor operations between them, in order, with no code in it.

For builders whose compiler would take the unrolled loop apart again: each part is built once, and the list says which
part or operation comes next. The list is JSON, constants are safetensors; nothing in it can run but torch's own operators.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.backends.base import BackendError, Program, Run, Tensors

if TYPE_CHECKING:
    import torch

LIST = "calls.json"
CONSTANTS = "constants.safetensors"
FORMAT = 1
NAMESPACE = "aten"


def write_calls(program: Program, folder: Path) -> int:
    """Write the list of a program's calls; return how many steps it has.

    Raises BackendError if an operation takes what the list cannot hold.
    """
    from safetensors.torch import save_file

    graph = program.graph
    places: dict[torch.fx.Node, int] = {}
    steps: list[dict[str, Any]] = []
    constants: dict[str, torch.Tensor] = {}
    outputs: list[int] = []
    for node in graph.graph.nodes:
        if node.op == "output":
            outputs = [places[value] for value in node.args[0]]
            continue
        places[node] = len(places)
        if node.op == "placeholder":
            continue
        if node.op == "get_attr":
            constants[node.target] = graph.get_buffer(node.target).detach().clone().contiguous()
            steps.append({"constant": node.target})
            continue
        arguments = {
            "args": [_written(value, places) for value in node.args],
            "kwargs": {name: _written(value, places) for name, value in node.kwargs.items()},
        }
        if node.op == "call_module":
            steps.append({"part": node.target, **arguments})
        elif node.target is operator.getitem:
            steps.append({"item": True, **arguments})
        else:
            steps.append({"operator": str(node.target), **arguments})
    save_file(constants, folder / CONSTANTS)
    found = {"format": FORMAT, "inputs": len(program.inputs), "steps": steps, "outputs": outputs}
    (folder / LIST).write_text(json.dumps(found))
    return len(steps)


def load_calls(folder: Path, parts: Mapping[str, Run]) -> Run:
    """Return what runs the list in a folder with these parts.

    Raises BackendError if the list is of another format or names an operator that is none of torch's.
    """
    import torch
    from safetensors.torch import load_file

    found = json.loads((folder / LIST).read_text())
    if found["format"] != FORMAT:
        raise BackendError(f"{LIST} is of format {found['format']}, this version reads {FORMAT}")
    constants = load_file(folder / CONSTANTS)
    first = int(found["inputs"])
    steps = [_read(step, constants, parts) for step in found["steps"]]
    last_use = _last_uses(found, first)

    def run(inputs: Tensors) -> Tensors:
        values: list[Any] = [*inputs, *(None for _ in steps)]
        with torch.no_grad():
            for index, step in enumerate(steps, first):
                values[index] = step(values)
                for spent in last_use.get(index, ()):
                    values[spent] = None
        return tuple(values[place] for place in found["outputs"])

    return run


Step = "Callable[[list[Any]], Any]"


def _read(
    step: Mapping[str, Any], constants: Mapping[str, torch.Tensor], parts: Mapping[str, Run]
) -> Callable[[list[Any]], Any]:
    if "constant" in step:
        value = constants[step["constant"]]
        return lambda values: value
    args, kwargs = step["args"], step["kwargs"]
    if "part" in step:
        run = parts[step["part"]]
        return lambda values: run(tuple(_given(argument, values) for argument in args))
    call: Callable[..., Any] = operator.getitem if "item" in step else _operator(step["operator"])
    return lambda values: call(
        *(_given(argument, values) for argument in args),
        **{name: _given(argument, values) for name, argument in kwargs.items()},
    )


def _operator(name: str) -> Callable[..., Any]:
    import torch

    namespace, _, rest = name.partition(".")
    operation, _, overload = rest.partition(".")
    if namespace != NAMESPACE:
        raise BackendError(f"the engine's list names {name}, which is none of torch's own operators")
    found: Callable[..., Any] = getattr(getattr(torch.ops.aten, operation), overload)
    return found


def _last_uses(found: Mapping[str, Any], first: int) -> dict[int, list[int]]:
    """Return, for each step, the values that nothing after it reads."""
    last: dict[int, int] = {}
    for index, step in enumerate(found["steps"], first):
        for place in _places([step.get("args", []), list(step.get("kwargs", {}).values())]):
            last[place] = index
    spent: dict[int, list[int]] = {}
    for place, index in last.items():
        if place not in found["outputs"]:
            spent.setdefault(index, []).append(place)
    return spent


def _places(value: Any) -> list[int]:
    if isinstance(value, dict):
        return [value["value"]] if "value" in value else []
    return [place for item in value for place in _places(item)] if isinstance(value, list) else []


def _written(value: Any, places: Mapping[Any, int]) -> Any:
    import torch

    if isinstance(value, torch.fx.Node):
        return {"value": places[value]}
    if isinstance(value, list | tuple):
        return [_written(item, places) for item in value]
    if isinstance(value, torch.dtype | torch.device | torch.layout | torch.memory_format):
        return {type(value).__name__: str(value).removeprefix("torch.")}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise BackendError(f"an operation between the parts takes a {type(value).__name__}, which cannot be written down")


def _given(argument: Any, values: list[Any]) -> Any:
    if isinstance(argument, list):
        return [_given(item, values) for item in argument]
    if not isinstance(argument, dict):
        return argument
    ((kind, text),) = argument.items()
    if kind == "value":
        return values[text]
    import torch

    return torch.device(text) if kind == "device" else getattr(torch, text)
