"""Export one class to ONNX and to OpenVINO and compare both with torch."""

from __future__ import annotations

import inspect
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.bench.coverage.small_models import denoiser_classes, small_inputs, small_model, table

if TYPE_CHECKING:
    import torch

    from diffopt.backends.base import Builder, Part

TOLERANCE = 1e-3
"""The greatest relative L2 error in float32 that counts as the same."""


def check_class(name: str, backend: str) -> dict[str, Any]:
    """Return `status` (exported, refused, wrong, not built), a reason, the error, and the seconds it took."""
    from diffopt.backends.base import EngineOptions, builder

    if name not in table():
        return {"status": "not built", "reason": "bench/coverage/small.json has no small settings for it"}
    try:
        part = _part(name)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the table's reason
        return {"status": "not built", "reason": _short(error)}
    chosen = builder(backend, EngineOptions(), "cpu")
    found = _tried(chosen, part)
    if found["status"] != "exported" and any(part.batched):
        fixed = _tried(chosen, replace(part, batched=(False,) * len(part.inputs)))
        if fixed["status"] == "exported":
            return {**fixed, "reason": f"not with an open batch: {found['reason']}"}
    return found


def _tried(chosen: Builder, part: Part) -> dict[str, Any]:
    from diffopt.backends.base import BackendError, EngineOptions
    from diffopt.backends.numeric_check import compare

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            chosen.build(part, Path(folder), EngineOptions())
            found = compare(chosen.load(Path(folder), EngineOptions()), part)
        except BackendError as error:
            return {"status": "refused", "reason": str(error)[:400], "seconds": _since(started)}
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the table's reason
            return {"status": "refused", "reason": _short(error), "seconds": _since(started)}
    same = float(str(found["relative_l2_error"])) <= TOLERANCE
    return {
        "status": "exported" if same else "wrong",
        "reason": "" if same else f"off by {found['relative_l2_error']:.2g} (relative L2)",
        "seconds": _since(started),
        "batch": "open" if any(part.batched) else "fixed",
        **found,
    }


def _part(name: str) -> Part:
    """Return a small model of the class as a part; inputs with a batch of two have it open."""
    import torch

    from diffopt.backends.base import Part

    row = table()[name]
    model, arguments = small_model(denoiser_classes()[name], row["config"]), small_inputs(row["inputs"])
    plain = {"return_dict": False} if "return_dict" in inspect.signature(model.forward).parameters else {}
    flat, shape = torch.utils._pytree.tree_flatten(arguments)
    tensors = [index for index, value in enumerate(flat) if isinstance(value, torch.Tensor)]

    class Called(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            values = list(flat)
            for index, value in zip(tensors, inputs, strict=True):
                values[index] = value
            given = torch.utils._pytree.tree_unflatten(values, shape)
            out = self.model(**given, **plain)
            return tuple(v for v in torch.utils._pytree.tree_leaves(out) if isinstance(v, torch.Tensor))

    called = Called().eval()
    inputs = tuple(flat[index] for index in tensors)
    with torch.no_grad():
        called(*inputs)
    batch = inputs[0].shape[0] if inputs[0].ndim and inputs[0].shape[0] == 2 else None
    batched = tuple(batch is not None and value.ndim > 0 and value.shape[0] == batch for value in inputs)
    return Part(name, called, inputs, tuple(f"input_{index}" for index in range(len(inputs))), batched)


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 1)


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:400]
