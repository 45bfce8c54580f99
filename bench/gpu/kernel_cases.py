"""What each kernel is tried on: the shapes of SDXL, PixArt-Σ, SD3.5-medium and FLUX.1 at 1024², batch 1 with guidance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import torch

Arguments: TypeAlias = "tuple[Any, ...]"
Function: TypeAlias = "Callable[..., Any]"
HALF_UNIT = 1 / 16
"""Half a unit in the last place of float8_e4m3: how far rounding moves a number at most."""


@dataclass(frozen=True)
class Case:
    """One kernel at one shape.

    Args:
        name: `kernel/shape`.
        make: makes fresh arguments from a generator.
        ours: the kernel.
        plain: the same in torch operators, for eager, for inductor, and in float64 for the reference.
        variants: other ways to run the kernel, by name.
        wide: turns what `ours` returns into what `plain` returns, where that is not the same.
        tolerance: greatest relative error (norms) against float64.
        flops: multiplications and additions; 0 where the kernel only moves bytes.
    """

    name: str
    make: Callable[[torch.Generator], Arguments]
    ours: Function
    plain: Function
    variants: dict[str, Function] = field(default_factory=dict)
    wide: Function | None = None
    tolerance: float = 1e-2
    flops: int = 0


def cases(device: str, *, small: bool) -> Iterator[Case]:
    """Yield every case, the ones most likely to pay first. small: the same kernels on a few numbers."""
    for make in (_group_norms, _norm_ropes, _linears, _modulations, _steps, _geglus, _quantizations, _residuals):
        yield from make(_Sizes(device, small))


@dataclass(frozen=True)
class _Sizes:
    """Draws arguments on a device, in bfloat16 unless told otherwise; small ones where asked."""

    device: str
    small: bool

    def __call__(self, large: int, small: int) -> int:
        return small if self.small else large

    def draw(self, generator: torch.Generator, *shape: int, dtype: str = "bfloat16") -> torch.Tensor:
        import torch

        drawn = torch.randn(*shape, generator=generator, device=self.device, dtype=torch.float32)
        return drawn.to(getattr(torch, dtype))


def _group_norms(sizes: _Sizes) -> Iterator[Case]:
    import torch

    from diffopt.backends.kernels.group_norm import group_norm_silu, reference

    shapes = [
        ("sdxl-128x128x320", 2, 320, 128, True, False),
        ("sdxl-64x64x640-added", 2, 640, 64, True, True),
        ("sdxl-32x32x1280-added", 2, 1280, 32, True, True),
        ("sdxl-128x128x960", 2, 960, 128, True, False),
        ("sdxl-32x32x2560", 2, 2560, 32, True, False),
        ("vae-1024x1024x128", 1, 128, 1024, True, False),
        ("vae-256x256x512", 1, 512, 256, True, False),
        ("sdxl-128x128x320-channels-first", 2, 320, 128, False, False),
    ]
    for label, batch, channels, side, last, added in shapes:

        def make(
            generator: torch.Generator, batch: int = batch, channels: int = channels, side: int = side,
            last: bool = last, added: bool = added,
        ) -> Arguments:  # fmt: skip
            pixels, width = sizes(side, 6), sizes(channels, 16)
            x = sizes.draw(generator, batch, width, pixels, pixels)
            x = x.contiguous(memory_format=torch.channels_last) if last else x
            weight, bias = sizes.draw(generator, width), sizes.draw(generator, width)
            return x, sizes(32, 4), weight, bias, 1e-5, sizes.draw(generator, batch, width) if added else None, True

        forced = {"one-program-a-group": 1 << 30, "three-launches": 0}
        elements = side * side * channels // 32
        variants = {
            name: (lambda *arguments, small=limit: group_norm_silu(*arguments, small))
            for name, limit in forced.items()
            if sizes.small or ((name == "three-launches") == (elements <= 16384) and elements <= 262144)
        }
        yield Case(f"group-norm-silu/{label}", make, group_norm_silu, reference, variants)


def _norm_ropes(sizes: _Sizes) -> Iterator[Case]:
    from diffopt.backends.kernels.norm_rope import norm_rope, reference

    shapes = [
        ("flux-joined", 1, 4096, 512, 24, 128, True, True),
        ("flux-single", 1, 4608, 0, 24, 128, True, True),
        ("sd35-medium-joined", 2, 4096, 333, 24, 64, False, False),
    ]
    for label, batch, tokens, texts, heads, head, rotated, first in shapes:

        def make(
            generator: torch.Generator, batch: int = batch, tokens: int = tokens, texts: int = texts,
            heads: int = heads, head: int = head, rotated: bool = rotated, first: bool = first,
        ) -> Arguments:  # fmt: skip
            image, text, many, wide = sizes(tokens, 5), sizes(texts, min(texts, 3)), sizes(heads, 3), sizes(head, 8)
            x = sizes.draw(generator, batch, image, many, wide)
            context = sizes.draw(generator, batch, text, many, wide) if text else None
            angles = sizes.draw(generator, image + text, wide // 2, dtype="float32").repeat_interleave(2, dim=1)
            cos, sin = (angles.cos(), angles.sin()) if rotated else (None, None)
            weights = [sizes.draw(generator, wide) for _ in range(2)]
            return x, weights[0], 1e-6, cos, sin, context, weights[1] if text else None, 1e-6, first

        yield Case(f"norm-rope/{label}", make, norm_rope, reference)


def _linears(sizes: _Sizes) -> Iterator[Case]:
    import torch

    from diffopt.backends.kernels.quantize_rows import quantize_rows, scaled_matmul

    def ours(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, low: torch.Tensor, scales: torch.Tensor
    ) -> torch.Tensor:
        rows, row_scales = quantize_rows(x)
        return scaled_matmul(rows, row_scales, low, scales, bias)

    def plain(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, low: torch.Tensor, scales: torch.Tensor
    ) -> torch.Tensor:
        return torch.nn.functional.linear(x, weight, bias)

    shapes = [
        ("flux-4608x3072x12288", 4608, 3072, 12288),
        ("flux-4608x12288x3072", 4608, 12288, 3072),
        ("flux-4608x3072x3072", 4608, 3072, 3072),
        ("sdxl-2048x1280x10240", 2048, 1280, 10240),
        ("pixart-8192x1152x4608", 8192, 1152, 4608),
    ]
    for label, rows, inner, outer in shapes:

        def make(generator: torch.Generator, rows: int = rows, inner: int = inner, outer: int = outer) -> Arguments:
            m, k, n = sizes(rows, 32), sizes(inner, 32), sizes(outer, 48)
            weight, bias = sizes.draw(generator, n, k), sizes.draw(generator, n)
            return sizes.draw(generator, m, k), weight, bias, *quantize_rows(weight)

        # Both factors are rounded, each by half a unit at most, and their errors do not point the same way.
        yield Case(
            f"fp8-linear/{label}", make, ours, plain, tolerance=2**0.5 * HALF_UNIT, flops=2 * rows * inner * outer
        )


def _modulations(sizes: _Sizes) -> Iterator[Case]:
    from diffopt.backends.kernels import modulate as kernels

    def vectors(generator: torch.Generator, batch: int, width: int, count: int) -> list[torch.Tensor]:
        return [*sizes.draw(generator, batch, 6, width)[:, :count].unbind(1)]

    def summed(
        x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total = x + gate[:, None] * y
        return total, kernels.reference(total, scale, shift, eps)

    for label, batch, tokens, width in (("flux-4608x3072", 1, 4608, 3072), ("pixart-2x4096x1152", 2, 4096, 1152)):

        def make(generator: torch.Generator, batch: int = batch, tokens: int = tokens, width: int = width) -> Arguments:
            wide = sizes(width, 24)
            return sizes.draw(generator, batch, sizes(tokens, 5), wide), *vectors(generator, batch, wide, 2), 1e-6

        def make_sum(
            generator: torch.Generator, batch: int = batch, tokens: int = tokens, width: int = width
        ) -> Arguments:
            wide, many = sizes(width, 24), sizes(tokens, 5)
            pair = [sizes.draw(generator, batch, many, wide) for _ in range(2)]
            return *pair, *vectors(generator, batch, wide, 3), 1e-6

        yield Case(f"modulate/{label}", make, kernels.modulate, kernels.reference)
        yield Case(f"add-modulate/{label}", make_sum, kernels.add_modulate, summed)
        yield Case(
            f"modulate-quantized/{label}",
            make,
            kernels.modulate_quantized,
            _then_quantized(kernels.reference),
            wide=_widened,
            tolerance=HALF_UNIT,
        )


def _steps(sizes: _Sizes) -> Iterator[Case]:
    from diffopt.backends.kernels.guided_step import guided_step, reference

    shapes = [("sdxl-euler", (4, 128, 128), 2, False), ("sdxl-multistep", (4, 128, 128), 2, True)]
    shapes += [("flux-euler", (4096, 64, 1), 1, False)]
    for label, shape, branches, history in shapes:

        def make(
            generator: torch.Generator, shape: tuple[int, ...] = shape, branches: int = branches,
            history: bool = history,
        ) -> Arguments:  # fmt: skip
            size = tuple(sizes(side, min(side, 5)) for side in shape)
            prediction, sample = sizes.draw(generator, branches, *size), sizes.draw(generator, 1, *size)
            earlier = sizes.draw(generator, 1, *size, dtype="float32") if history else None
            return prediction, sample, earlier, sizes.draw(generator, 6, dtype="float32")

        yield Case(f"guided-step/{label}", make, guided_step, reference)


def _geglus(sizes: _Sizes) -> Iterator[Case]:
    from diffopt.backends.kernels import geglu as kernels

    for label, tokens, width in (("sdxl-2x4096x2560", 4096, 2560), ("sdxl-2x1024x5120", 1024, 5120)):

        def make(generator: torch.Generator, tokens: int = tokens, width: int = width) -> Arguments:
            return (sizes.draw(generator, 2, sizes(tokens, 5), 2 * sizes(width, 20)),)

        yield Case(f"geglu/{label}", make, kernels.geglu, kernels.reference)
        if width == 5120:
            yield Case(
                f"geglu-quantized/{label}",
                make,
                kernels.geglu_quantized,
                _then_quantized(kernels.reference),
                wide=_widened,
                tolerance=HALF_UNIT,
            )


def _quantizations(sizes: _Sizes) -> Iterator[Case]:
    from diffopt.backends.kernels.quantize_rows import quantize_rows

    plain = _then_quantized(lambda x: x)
    for label, rows, width in (("flux-4608x3072", 4608, 3072), ("flux-4608x12288", 4608, 12288)):

        def make(generator: torch.Generator, rows: int = rows, width: int = width) -> Arguments:
            return (sizes.draw(generator, sizes(rows, 5), sizes(width, 24)),)

        yield Case(f"quantize-rows/{label}", make, quantize_rows, plain, wide=_widened, tolerance=HALF_UNIT)


def _residuals(sizes: _Sizes) -> Iterator[Case]:
    from diffopt.backends.kernels.add_residual import add_residual, reference

    for label, sloped in (("flux-4608x3072", False), ("flux-4608x3072-forecast", True)):

        def make(generator: torch.Generator, sloped: bool = sloped) -> Arguments:
            shape = (1, sizes(4608, 5), sizes(3072, 24))
            x, residual, slope = (sizes.draw(generator, *shape) for _ in range(3))
            weight = sizes.draw(generator, 1, dtype="float32")
            return (x, residual, slope, weight) if sloped else (x, residual, None, None)

        yield Case(f"add-residual/{label}", make, add_residual, reference)


def _then_quantized(function: Function) -> Function:
    """Return the function followed by torch's quantization of its rows; in float64, by none."""
    import torch

    from diffopt.backends.kernels import quantize_rows

    def both(*arguments: Any) -> Any:
        found = function(*arguments)
        rows = found.reshape(-1, found.shape[-1])
        return rows if found.dtype == torch.float64 else quantize_rows.reference(rows)

    return both


def _widened(found: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return what rows in float8 stand for."""
    return found[0].double() * found[1].double()
