"""From a torch module to a checked ONNX model: what the builders of ONNX Runtime and of TensorRT share."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.backends.base import Axes, Axis, BackendError, Tensors

if TYPE_CHECKING:
    import torch

MODEL = "model.onnx"
WEIGHTS = "model.bin"
LARGEST_FILE = 2**30
"""Protocol buffers end at 2 GiB; larger models keep their weights in a file beside."""


def convert(
    module: torch.nn.Module,
    inputs: Tensors,
    names: tuple[str, ...],
    axes: tuple[Axes, ...] | None = None,
    *,
    opset: int | None = None,
) -> Any:
    """Convert a module with tensor arguments and results by `torch.export`, and let onnxscript's optimizer clean it up.

    axes: the open dimensions of each input, by name; one name is one size, wherever it stands.
    opset: version of the operators; None is the exporter's own choice.
    Raises BackendError if the exporter cannot take it, or would fix a dimension that is to be open.
    """
    import torch

    opened = axes or ({},) * len(inputs)
    # A size of one would be taken for a constant.
    examples = tuple(_at_least_two(value, given) for value, given in zip(inputs, opened, strict=True))
    made: dict[str, Any] = {}
    shapes = tuple(
        {position: made.setdefault(axis.name, _dimension(axis)) for position, axis in given.items()} for given in opened
    )

    def onnx(given: Any, **more: Any) -> Any:
        return torch.onnx.export(
            given, examples, dynamo=True, input_names=list(names), verbose=False, optimize=True, opset_version=opset, **more
        )  # fmt: skip

    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                spelled = spelled_out(module)
                program = torch.export.export(spelled, examples, dynamic_shapes={"inputs": shapes}, strict=False)
                exported = onnx(program)
            except Exception:  # noqa: BLE001 - the exporter knows more ways than this first one; its own error is said
                exported = onnx(module, dynamic_shapes={"inputs": shapes} if _variadic(module) else shapes)
    except Exception as error:
        raise BackendError(f"torch.onnx cannot export {type(module).__name__}: {_telling(error)}") from error
    if exported is None:
        raise BackendError(f"torch.onnx cannot export {type(module).__name__}")
    model = exported.model_proto
    if len(model.graph.input) != len(inputs):
        raise BackendError(f"ONNX sees {len(model.graph.input)} of {len(inputs)} inputs of {type(module).__name__}")
    _name_dimensions(model, opened)
    spell_out_boolean_choices(model)
    return model


def save(model: Any, folder: Path) -> None:
    """Write model.onnx, checked; large weights into a file beside it."""
    import onnx

    external = model.ByteSize() > LARGEST_FILE
    onnx.save_model(model, str(folder / MODEL), save_as_external_data=external, location=WEIGHTS)
    onnx.checker.check_model(str(folder / MODEL))


def spell_out_boolean_choices(model: Any) -> int:
    """Write choices between truth values as logic, since ONNX Runtime chooses between numbers only; return how many."""
    import onnx
    from onnx import TensorProto, helper

    if not any(node.op_type == "Where" for node in model.graph.node):
        return 0
    typed = onnx.shape_inference.infer_shapes(model).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in [*typed.input, *typed.value_info, *typed.output]}
    kinds |= {weight.name: weight.data_type for weight in model.graph.initializer}
    nodes, changed = [], 0
    for node in model.graph.node:
        if node.op_type != "Where" or kinds.get(node.input[1], kinds.get(node.output[0])) != TensorProto.BOOL:
            nodes.append(node)
            continue
        (condition, one, other), out = node.input, node.output[0]
        nodes += [
            helper.make_node("And", [condition, one], [f"{out}.one"]),
            helper.make_node("Not", [condition], [f"{out}.not"]),
            helper.make_node("And", [f"{out}.not", other], [f"{out}.other"]),
            helper.make_node("Or", [f"{out}.one", f"{out}.other"], [out]),
        ]
        changed += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return changed


def spelled_out(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module that does the same, in words that the exporter follows with open sizes.

    Repeated elements become an expansion, and a `squeeze` of what is not 1, which does nothing in torch, is left out: it
    would be a Squeeze in ONNX, which is an error there.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class Spelling(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = kwargs or {}
            if func in (torch.repeat_interleave, torch.Tensor.repeat_interleave):
                value, repeats, *rest = args
                dim = given.get("dim", rest[0] if rest else None)
                if isinstance(repeats, int) and dim is not None:
                    place = dim % value.ndim
                    sizes = [*value.shape[: place + 1], repeats, *value.shape[place + 1 :]]
                    return value.unsqueeze(place + 1).expand(sizes).flatten(place, place + 1)
            if func in (torch.squeeze, torch.Tensor.squeeze) and len(args) == 2 and isinstance(args[1], int):
                size = args[0].shape[args[1]]
                if isinstance(size, int) and size != 1:
                    return args[0]
            return func(*args, **given)

    class Spelled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *inputs: torch.Tensor) -> Any:
            with Spelling():
                return self.module(*inputs)

    return Spelled().eval()


def _telling(error: BaseException) -> str:
    """Return the first line of what an error came from; the exporter's own tells only which step it was."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def _dimension(axis: Axis) -> Any:
    """Return an open dimension; only a batch is free of conditions that a network puts on its sizes."""
    import torch

    # without a greatest size, the exporter would have to show that sums of billions of pictures fit an integer
    return torch.export.Dim(axis.name, max=max(2, axis.most)) if axis.name == "batch" else torch.export.Dim.AUTO


def _name_dimensions(model: Any, opened: tuple[Axes, ...]) -> None:
    """Name the open dimensions of the inputs as asked; the exporter's own names are s0, s1, ..."""
    renamed: dict[str, str] = {}
    for value, axes in zip(model.graph.input, opened, strict=True):
        sizes = value.type.tensor_type.shape.dim
        for position, axis in axes.items():
            if sizes[position].HasField("dim_value"):
                raise BackendError(
                    f"{value.name}: the exporter fixes {axis.name} at {sizes[position].dim_value}",
                    f"leave {axis.name} out of what is open",
                )
            renamed.setdefault(sizes[position].dim_param, axis.name)
            sizes[position].dim_param = axis.name
    for value in [*model.graph.output, *model.graph.value_info]:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in renamed:
                size.dim_param = renamed[size.dim_param]


def _variadic(module: torch.nn.Module) -> bool:
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    return inspect.Parameter.VAR_POSITIONAL in kinds


def _at_least_two(value: torch.Tensor, axes: Axes) -> torch.Tensor:
    repeats = [2 if position in axes and size == 1 else 1 for position, size in enumerate(value.shape)]
    return value.repeat(repeats) if value.ndim else value
