"""What the card can do at most: matrix products, copies, and attention by each kernel at the models' sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SHAPES = {
    "sdxl 64x64": (2, 10, 4096, 4096, 64),
    "sdxl 32x32": (2, 20, 1024, 1024, 64),
    "sdxl prompt": (2, 20, 1024, 77, 64),
    "pixart": (2, 16, 4096, 4096, 72),
    "pixart prompt": (2, 16, 4096, 300, 72),
    "pixart short prompt": (1, 16, 4096, 64, 72),
    "flux": (1, 24, 4608, 4608, 128),
}
"""Batch, heads, queries, keys, channels of a head."""

BACKENDS = ("CUDNN_ATTENTION", "FLASH_ATTENTION", "EFFICIENT_ATTENTION")


def ceilings(size: int = 8192, copy_bytes: int = 4 << 30) -> dict[str, Any]:
    """Measure on the current CUDA device, on random data: TFLOP/s, TB/s counting bytes read and written, seconds."""
    import torch

    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "versions": versions()}
    one = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    other = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    work = 2 * size**3
    found["bf16_tflops"] = work / _seconds(lambda: one @ other) / 1e12
    narrow, columns = one.to(torch.float8_e4m3fn), other.to(torch.float8_e4m3fn).t().contiguous().t()
    ones = torch.ones(size, 1, device="cuda"), torch.ones(1, size, device="cuda")
    for fast in (True, False):
        seconds = _seconds(
            lambda fast=fast: torch._scaled_mm(  # type: ignore[misc]
                narrow, columns, scale_a=ones[0], scale_b=ones[1], out_dtype=torch.bfloat16, use_fast_accum=fast
            )
        )
        found[f"fp8_rowwise_tflops{'' if fast else '_exact_accumulation'}"] = work / seconds / 1e12
    source = torch.randn(copy_bytes // 4, device="cuda")
    target = torch.empty_like(source)
    found["copy_tb_s"] = 2 * copy_bytes / _seconds(lambda: target.copy_(source)) / 1e12
    found["attention_s"] = {name: _attention(shape) for name, shape in SHAPES.items()}
    torch.cuda.empty_cache()
    return found


def versions() -> dict[str, str]:
    """Return the versions of what the figures depend on."""
    import torch

    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return {"torch": torch.__version__, "cuda": str(torch.version.cuda), "cudnn": str(cudnn)}


def _attention(shape: tuple[int, int, int, int, int]) -> dict[str, Any]:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    batch, heads, queries, keys, channels = shape
    # As diffusers lays them out: heads are parted from the channels of one projection.
    query = torch.randn(batch, queries, heads, channels, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
    key, value = (
        torch.randn(batch, keys, heads, channels, device="cuda", dtype=torch.bfloat16).transpose(1, 2) for _ in "kv"
    )
    mask = torch.zeros(batch, 1, 1, keys, device="cuda", dtype=torch.bfloat16).expand(batch, heads, queries, keys)
    attend = torch.nn.functional.scaled_dot_product_attention
    found: dict[str, Any] = {"flops": 4 * batch * heads * queries * keys * channels}
    for name in ("default", *BACKENDS):
        for masked in (False, True):
            if masked and keys == queries:
                continue
            label = f"{name}{' masked' if masked else ''}"
            try:
                given = mask if masked else None
                if name == "default":
                    found[label] = _seconds(lambda given=given: attend(query, key, value, attn_mask=given))  # type: ignore[misc]
                else:
                    with sdpa_kernel(getattr(SDPBackend, name)):
                        found[label] = _seconds(lambda given=given: attend(query, key, value, attn_mask=given))  # type: ignore[misc]
            except RuntimeError as error:
                found[label] = f"no: {str(error).splitlines()[0][:120]}"
    return found


def _seconds(run: Callable[[], Any], repeats: int = 20) -> float:
    """Return the median seconds of one run, by device events."""
    import statistics

    import torch

    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return float(statistics.median(times))
