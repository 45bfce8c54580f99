"""Quantize an OpenVINO engine by NNCF, on inputs that were recorded over the timesteps of real requests."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffopt.backends.base import JSON, BackendError, Tensors

MODEL = "model.xml"
MODES = ("weights", "hybrid", "full")


def quantize_folder(folder: Path, samples: Sequence[Tensors], mode: str) -> dict[str, JSON]:
    """Quantize the model in a folder in place; return facts.

    mode: `weights` stores them in 8 bits; `full` also computes in 8 bits, with ranges from the samples; `hybrid` does
    that for convolutions and stores the weights of all other layers. Raises BackendError if NNCF cannot.
    """
    import nncf
    import openvino

    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = openvino.Core().read_model(folder / MODEL)
    inputs = [[value.numpy() for value in sample] for sample in samples]
    dataset = nncf.Dataset(inputs)
    before = _size(folder)
    expected = _run(model, inputs)
    try:
        if mode in ("weights", "hybrid"):
            own = nncf.IgnoredScope(types=["Convolution"], validate=False) if mode == "hybrid" else None
            model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM, ignored_scope=own)
        if mode in ("hybrid", "full"):
            model = nncf.quantize(
                model,
                dataset,
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(samples),
                model_type=nncf.ModelType.TRANSFORMER,
                ignored_scope=nncf.IgnoredScope(names=_others(model), validate=False) if mode == "hybrid" else None,
            )
    except (nncf.ValidationError, nncf.UnsupportedModelError, RuntimeError) as error:
        raise BackendError(f"NNCF cannot quantize this engine: {str(error).splitlines()[0][:160]}") from error
    quantizers = sum(node.get_type_name() == "FakeQuantize" for node in model.get_ops())
    missed = _distance(_run(model, inputs), expected)
    openvino.save_model(model, folder / f"new_{MODEL}", compress_to_fp16=False)
    del model
    for suffix in (".xml", ".bin"):
        (folder / f"new_{MODEL}").with_suffix(suffix).replace((folder / MODEL).with_suffix(suffix))
    return {
        "nncf": mode,
        "samples": len(samples),
        "quantizers": quantizers,
        "relative_l2_error_quantized": round(missed, 6),
        "bytes_before": before,
        "bytes_after": _size(folder),
    }


def _others(model: Any) -> list[str]:
    """Return the operations with weights that are no convolutions."""
    return [node.get_friendly_name() for node in model.get_ops() if node.get_type_name() in ("MatMul", "Gather")]


def _run(model: Any, inputs: Sequence[Sequence[Any]]) -> list[Any]:
    import openvino

    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [compiled(list(sample))[0] for sample in inputs]


def _distance(found: Sequence[Any], expected: Sequence[Any]) -> float:
    missed = sum(float(((one - other) ** 2).sum()) for one, other in zip(found, expected, strict=True))
    return float((missed / sum(float((other**2).sum()) for other in expected)) ** 0.5)


def _size(folder: Path) -> int:
    return (folder / MODEL).with_suffix(".bin").stat().st_size
