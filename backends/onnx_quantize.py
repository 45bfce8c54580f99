"""Eight-bit ONNX graphs with quantize and dequantize operations written in, by ONNX Runtime's own quantizer."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diffopt.backends.base import BackendError, Tensors
from diffopt.backends.onnx_export import MODEL, save

PRODUCTS = ("MatMul", "Gemm", "Conv")
"""What is quantized; norms, softmax and sums stay in float32."""
MOST_CALLS = 32
"""Calls of a component that ranges are taken from."""


def quantize(model: Any, precision: str, calls: Sequence[Tensors], names: Sequence[str]) -> Any:
    """Return a model whose products work on 8-bit integers.

    precision: `int8-dynamic` rounds what enters a product by the range it has in that call; `int8` by the range that it had
        in recorded calls, which is faster and written into the graph as Q/DQ pairs.
    calls: inputs of recorded calls; only `int8` needs them.
    Raises BackendError if `int8` gets no calls, or the quantizer cannot take the model.
    """
    import onnx

    if precision == "int8" and not calls:
        raise BackendError(
            "static quantization needs recorded calls", "export it with diffopt export, which records them"
        )
    with tempfile.TemporaryDirectory() as name, _quiet():
        folder = Path(name)
        save(model, folder)
        try:
            _run(folder / MODEL, folder / "quantized.onnx", precision, calls[:MOST_CALLS], names)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise BackendError(f"onnxruntime cannot quantize this: {lines[0]}") from error
        return onnx.load(folder / "quantized.onnx")


def _run(source: Path, target: Path, precision: str, calls: Sequence[Tensors], names: Sequence[str]) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    if precision == "int8-dynamic":
        quantize_dynamic(
            source, target, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, weight_type=QuantType.QInt8
        )
        return

    class Recorded(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter([dict(zip(names, (v.numpy() for v in call), strict=True)) for call in calls])

        def get_next(self) -> Any:
            return next(self._left, None)

    quantize_static(
        source, target, Recorded(), quant_format=QuantFormat.QDQ, op_types_to_quantize=list(PRODUCTS), per_channel=True,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, extra_options={"ActivationSymmetric": True},
    )  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the quantizer's advice, which it gives to the root logger."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
