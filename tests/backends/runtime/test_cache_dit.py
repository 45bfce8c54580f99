"""cache-dit skips blocks of a transformer, starts anew with each request, and what it does not know is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffopt.backends.base import BackendError
from diffopt.backends.runtime import cache_dit, witnesses

pytest.importorskip("cache_dit")


@pytest.mark.slow
@pytest.mark.parametrize("order", [0, 1])
def test_blocks_are_skipped_and_each_request_starts_anew(
    tiny_of: Callable[[str], Any], latents: Callable[..., torch.Tensor], order: int
) -> None:
    pipe, call = tiny_of("flux")
    plain = latents(pipe, call, num_inference_steps=8)
    cache_dit(pipe, "transformer", first=1, last=0, threshold=0.5, warm=2, order=order)
    first = latents(pipe, call, num_inference_steps=8)
    (seen,) = witnesses(pipe)
    assert (seen.transform, seen.count > 0) == ("cache_dit", True)
    assert not torch.equal(first, plain)
    latents(pipe, call, num_inference_steps=5)
    assert torch.equal(latents(pipe, call, num_inference_steps=8), first)


def test_a_transformer_that_is_cached_already_is_refused(tiny_of: Callable[[str], Any]) -> None:
    pipe, _ = tiny_of("flux")
    given: dict[str, Any] = {"first": 1, "last": 0, "threshold": 0.1, "warm": 2}
    cache_dit(pipe, "transformer", **given)
    with pytest.raises(BackendError, match="cannot follow cache_dit"):
        cache_dit(pipe, "transformer", **given)
