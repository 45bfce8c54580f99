"""What compilers see of a kernel: sizes, and which tensors it writes; and that it compiles for a GPU that is not here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from diffopt.backends.kernels.add_residual import add_residual
from diffopt.backends.kernels.geglu import geglu, geglu_quantized
from diffopt.backends.kernels.group_norm import group_norm_silu
from diffopt.backends.kernels.guided_step import guided_step
from diffopt.backends.kernels.modulate import add_modulate, modulate, modulate_quantized
from diffopt.backends.kernels.norm_rope import norm_rope
from diffopt.backends.kernels.quantize_rows import quantize_rows

HALF = torch.bfloat16


def _angles(tokens: int, head: int) -> torch.Tensor:
    """Return cosines and sines as tables hold them, each twice in a row."""
    return torch.randn(2, tokens, head // 2).repeat_interleave(2, dim=-1)


CALLS: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Any, ...]]]] = {
    "add_residual": (add_residual, lambda: (torch.randn(2, 3), torch.randn(2, 3), None, None)),
    "geglu": (geglu, lambda: (torch.randn(2, 3, 8, dtype=HALF),)),
    "geglu_quantized": (geglu_quantized, lambda: (torch.randn(2, 3, 8),)),
    "group_norm_silu": (group_norm_silu, lambda: (torch.randn(2, 4, 3, 3), 2, None, None, 1e-5, None, True)),
    "guided_step": (
        guided_step,
        lambda: (torch.randn(2, 4, dtype=HALF), torch.randn(1, 4, dtype=HALF), None, torch.randn(6)),
    ),
    "modulate": (modulate, lambda: (torch.randn(2, 3, 8), torch.randn(2, 8), torch.randn(1, 8), 1e-6)),
    "modulate_quantized": (modulate_quantized, lambda: (torch.randn(2, 3, 8), *torch.randn(2, 1, 8), 1e-6)),
    "add_modulate": (add_modulate, lambda: (*torch.randn(2, 2, 3, 8), *torch.randn(3, 2, 8), 1e-6)),
    "norm_rope": (
        norm_rope,
        lambda: (torch.randn(1, 3, 2, 8), torch.randn(8), 1e-6, *_angles(3, 8), None, None, 0.0, True),
    ),
    "quantize_rows": (quantize_rows, lambda: (torch.randn(2, 3, 8),)),
}


@pytest.mark.parametrize("kernel", CALLS)
def test_sizes_and_strides_are_known_without_computing(kernel: str) -> None:
    call, make = CALLS[kernel]
    arguments = make()
    real = call(*arguments)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = call(*(mode.from_tensor(x) if isinstance(x, torch.Tensor) else x for x in arguments))
    pairs = zip(real, fake, strict=True) if isinstance(real, tuple) else [(real, fake)]
    for got, foreseen in pairs:
        assert (got.shape, got.stride(), got.dtype) == (foreseen.shape, foreseen.stride(), foreseen.dtype)


@pytest.mark.parametrize("kernel", CALLS)
def test_torch_compile_takes_the_call_in_whole(kernel: str) -> None:
    call, make = CALLS[kernel]
    arguments = make()
    torch._dynamo.reset()
    real = call(*arguments)
    found = torch.compile(call, backend="aot_eager", fullgraph=True)(*arguments)
    for got, wanted in zip(found, real, strict=True) if isinstance(real, tuple) else [(found, real)]:
        if got.dtype == torch.float8_e4m3fn:
            continue  # the interpreter cuts numbers off where torch rounds them
        assert torch.allclose(got, wanted, rtol=2**-7, atol=2**-7)


@pytest.mark.slow
def test_each_kernel_compiles_for_hopper_and_writes_its_results_alone(repository: Path) -> None:
    script = Path(__file__).with_name("compile_for_hopper.py")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment, cwd=repository, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = dict(line.split(": ") for line in done.stdout.splitlines())
    assert lines == {
        "_add_residual": "out_ptr",
        "_apply": "out_ptr",
        "_geglu": "out_ptr",
        "_geglu_quantized": "out_ptr scale_ptr",
        "_guided_step": "clean_ptr next_ptr",
        "_join": "scale_ptr shift_ptr",
        "_modulate": "out_ptr row_scale_ptr sum_ptr",
        "_norm_rope": "out_ptr",
        "_quantize": "out_ptr scale_ptr",
        "_statistics": "mean_ptr spread_ptr",
        "_whole": "out_ptr",
    }
