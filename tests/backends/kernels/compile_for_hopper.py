"""Compile every kernel for compute capability 9.0 without a GPU, and print which pointers each writes.

Run by `test_traced.py` in a process of its own, where Triton does not interpret. Run by hand with another Triton on the
path (`PYTHONPATH=... python tests/backends/kernels/compile_for_hopper.py`), it tells whether that version takes them.
"""

from __future__ import annotations

import re
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from diffopt.backends.kernels import (
    add_residual,
    geglu,
    group_norm,
    guided_step,
    modulate,
    norm_rope,
    quantize_rows,
)

TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float8_e4m3fn: "*fp8e4nv",
}
written: dict[str, set[str]] = {}


def recording(kernel: Any) -> Any:
    """Stand in for `wrap_triton`: compile each configuration for the arguments of a launch instead of launching it."""

    class Launch:
        def __getitem__(self, grid: Any) -> Any:
            return lambda *values, **options: _compile(kernel, values, options)

    return Launch()


def _compile(kernel: Any, values: tuple[Any, ...], options: dict[str, Any]) -> None:
    function = getattr(kernel, "fn", kernel) if hasattr(kernel, "configs") else kernel
    configs = [(config.kwargs, config.num_warps) for config in getattr(kernel, "configs", [])] or [({}, 4)]
    for extra, warps in configs[:1] + configs[-1:]:
        given = {**dict(zip(function.arg_names, values, strict=False)), **options, **extra}
        signature, constants, attributes = {}, {}, {}
        for index, name in enumerate(function.arg_names):
            value = given[name]
            if isinstance(value, torch.Tensor):
                signature[name], attributes[(index,)] = TYPES[value.dtype], [["tt.divisibility", 16]]
            elif function.params[index].is_constexpr or (isinstance(value, int) and value == 1):
                signature[name], constants[(index,)] = "constexpr", value
            else:
                signature[name] = "i32" if isinstance(value, int) else "fp32"
        source = ASTSource(function, signature, constants, attributes)
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
        written.setdefault(function.__name__, set()).update(_stores(made.asm["ttir"], list(signature), constants))


def _stores(ttir: str, names: list[str], constants: dict[tuple[int], Any]) -> set[str]:
    """Return which pointers a program stores to, followed back from each store through its addresses."""
    made = dict(re.findall(r"(%[\w#]+)(?::\d+)? = ([^\n]*)", ttir))
    found = set()
    for address in re.findall(r"tt\.store (%[\w#]+)", ttir):
        queue, seen = [address], set()
        while queue:
            name = queue.pop()
            if name in seen:
                continue
            seen.add(name)
            if name.removeprefix("%") in names:
                found.add(name.removeprefix("%"))
            elif name in made:
                queue += re.findall(r"%[\w#]+", made[name])
    return {name for name in found if name.endswith("_ptr")}


def main() -> None:
    """Launch every kernel once for each of its ways, on arguments that stand for full-size ones."""
    modules = (add_residual, geglu, group_norm, guided_step, modulate, norm_rope, quantize_rows)
    for module in modules:
        vars(module)["on_triton"] = lambda *tensors: True
        vars(module)["wrap_triton"] = recording

    def half(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.bfloat16)

    x, vectors = half(2, 32, 1152), half(2, 6, 1152).unbind(1)
    add_residual.add_residual(x, x, x, torch.zeros(1))
    geglu.geglu(x)
    geglu.geglu_quantized(x)
    images = half(2, 320, 16, 16).contiguous(memory_format=torch.channels_last)
    for small in (0, 1 << 30):
        for laid_out in (images, images.contiguous()):
            group_norm.group_norm_silu(laid_out, 32, half(320), half(320), 1e-5, half(2, 320), True, small)
    guided_step.guided_step(half(2, 4, 16, 16), half(1, 4, 16, 16), torch.zeros(1, 4, 16, 16), torch.zeros(6))
    modulate.modulate(x, vectors[0], vectors[1], 1e-6)
    modulate.modulate_quantized(x, vectors[0], vectors[1], 1e-6)
    modulate.add_modulate(x, x, vectors[0], vectors[1], vectors[2], 1e-6)
    heads, angles = half(1, 64, 24, 128), torch.zeros(128, 128)
    norm_rope.norm_rope(heads, half(128), 1e-6, angles, angles, heads, half(128), 1e-6, True)
    norm_rope.norm_rope(heads, half(128), 1e-6, None, None, None, None, 0.0, False)
    quantize_rows.quantize_rows(x)
    for name in sorted(written):
        print(f"{name}: {' '.join(sorted(written[name]))}")


if __name__ == "__main__":
    main()
