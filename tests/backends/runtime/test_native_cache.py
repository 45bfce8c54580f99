from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers import FirstBlockCacheConfig, MagCacheConfig
from diffusers.hooks import apply_first_block_cache, apply_mag_cache

from diffopt.backends import BackendError
from diffopt.backends.fitting import measure_ratios
from diffopt.backends.runtime import native_cache, open_cache_context, witnesses


def test_a_cache_of_diffusers_fails_without_a_context_and_works_with_it(tiny_of: Any, latents: Any) -> None:
    pipe, call = tiny_of("pixart")
    expected = latents(pipe, call)
    apply_first_block_cache(pipe.transformer, FirstBlockCacheConfig(threshold=1e-9))
    with pytest.raises(ValueError, match="No cache context is set"):
        latents(pipe, call)
    open_cache_context(pipe)
    assert torch.allclose(latents(pipe, call), expected, atol=1e-5)
    assert [(witness.transform, witness.count) for witness in witnesses(pipe)] == [("open-cache-context", 4)]


FIRST: dict[str, Any] = {"threshold": 10.0}
SERIES: dict[str, Any] = {"kind": "taylorseer", "interval": 2, "warm": 1}
MAG: dict[str, Any] = {"kind": "mag", "threshold": 0.5, "warm": 1, "ratios": [1.0, 1.05, 0.9, 0.8]}
KINDS = [
    ("pixart", FIRST),
    ("flux", FIRST),
    ("flux", SERIES),
    ("sd3", SERIES),
    ("pixart", MAG),
    ("flux", MAG),
    ("sd3", MAG),
]


@pytest.mark.parametrize(("tiny", "settings"), KINDS)
def test_calls_are_cached_and_requests_do_not_know_of_each_other(
    tiny_of: Any, latents: Any, tiny: str, settings: dict[str, Any]
) -> None:
    pipe, call = tiny_of(tiny)
    plain = latents(pipe, call)
    native_cache(pipe, **settings)
    first = latents(pipe, call, seed=1)
    latents(pipe, call, seed=2)
    assert torch.equal(latents(pipe, call, seed=1), first)
    found = {witness.transform: witness.count for witness in witnesses(pipe)}
    assert found["native-cache"] >= 3, found
    assert not torch.equal(latents(pipe, call), plain)


def test_ratios_of_one_traced_run_are_those_that_diffusers_prints(
    tiny_of: Any, latents: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe, call = tiny_of("flux")
    ratios = measure_ratios(pipe, lambda: latents(pipe, call), "transformer")
    apply_mag_cache(pipe.transformer, MagCacheConfig(calibrate=True, num_inference_steps=4))
    latents(pipe, call)
    printed = capsys.readouterr().out.partition("[MagCache]")[2].partition("\n")[2].strip()
    assert ratios == pytest.approx(json.loads(printed), rel=1e-4)
    assert ratios[0] == 1.0


def test_ratios_decide_which_steps_are_cached(tiny_of: Any, latents: Any) -> None:
    pipe, call = tiny_of("flux")
    native_cache(pipe, kind="mag", threshold=0.06, warm=2, longest=1, ratios=[1.0] * 5 + [2.0] * 3)
    latents(pipe, call, num_inference_steps=8)
    (witness,) = (found for found in witnesses(pipe) if found.transform == "native-cache")
    assert "2 of 8 calls" in witness.detail, "steps 2 and 4: a row of one ends at 3, and 2.0 is far from 1"


def test_a_request_that_raises_midway_leaves_nothing_behind(tiny_of: Any, latents: Any) -> None:
    pipe, call = tiny_of("flux")
    native_cache(pipe, threshold=10.0)
    expected, original = latents(pipe, call), pipe.scheduler.step

    def failing(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("stopped")

    pipe.scheduler.__dict__["step"] = failing
    with pytest.raises(RuntimeError, match="stopped"):
        latents(pipe, call, seed=3)
    pipe.scheduler.__dict__["step"] = original
    assert torch.equal(latents(pipe, call), expected)


def test_refuses_an_unknown_cache_and_a_second_one(tiny_of: Any) -> None:
    pipe, _ = tiny_of("flux")
    with pytest.raises(BackendError, match="no cache 'best'"):
        native_cache(pipe, kind="best")
    with pytest.raises(BackendError, match="mag needs ratios"):
        native_cache(pipe, kind="mag")
    native_cache(pipe)
    with pytest.raises(BackendError, match="opened already"):
        open_cache_context(pipe)


@pytest.mark.parametrize(
    ("tiny", "settings", "said"), [("sd3", FIRST, "returns no text"), ("pixart", SERIES, "finds no attention")]
)
def test_refuses_what_diffusers_cannot_cache(tiny_of: Any, tiny: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BackendError, match=said):
        native_cache(tiny_of(tiny)[0], **settings)
