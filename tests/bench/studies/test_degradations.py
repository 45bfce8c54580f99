from __future__ import annotations

import numpy as np
import torch

from diffopt.bench.fidelity import psnr
from diffopt.bench.studies import degradations


def test_weights_of_fewer_bits_lie_on_fewer_values_and_further_away() -> None:
    torch.manual_seed(0)
    errors = []
    for bits in (8, 4, 2):
        layer = torch.nn.Linear(64, 8)
        before = layer.weight.detach().clone()
        degradations._quantize(layer, bits)
        assert all(len(row.unique()) <= 2**bits - 1 for row in layer.weight.detach())
        errors.append(float((layer.weight.detach() - before).norm() / before.norm()))
    assert errors == sorted(errors)


def test_a_wider_blur_is_further_away_and_keeps_flat_images() -> None:
    images = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    near, far = (
        psnr(degradations._clipped(degradations._blurred(images.astype(np.float64), s)), images).mean()
        for s in (0.4, 1.5)
    )
    assert far < near
    flat = np.full((1, 8, 8, 3), 0.5)
    assert np.allclose(degradations._blurred(flat, 1.5), flat)
