"""What public API did to a pipeline is seen on its parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffopt.backends import BackendError
from diffopt.backends.runtime import call_defaults, offload_groups, witnesses


def seen(pipe: Any) -> dict[str, int]:
    return {witness.transform: witness.count for witness in witnesses(pipe)}


def test_nothing_is_seen_on_a_pipeline_as_it_was_loaded(pipe: Any) -> None:
    assert seen(call_defaults(pipe)) == {}


def test_each_change_is_counted_where_it_was_made(pipe: Any) -> None:
    call_defaults(pipe)
    pipe.unet.fuse_qkv_projections()
    pipe.vae.to(memory_format=torch.channels_last)
    pipe.vae.enable_slicing()
    attention = sum(hasattr(part, "fused_projections") for part in pipe.unet.modules())
    found = seen(pipe)
    assert found["fuse_qkv"] == attention > 0
    assert found["channels_last"] > 0
    assert found["slice_vae"] == 1


def test_layers_that_are_cast_are_counted(pipe: Any) -> None:
    call_defaults(pipe)
    pipe.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert seen(pipe)["cast_layerwise"] > 0


def test_blocks_that_run_compiled_are_counted(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, *_, **__: function)
    call_defaults(pipe)
    pipe.unet.compile_repeated_blocks()
    assert seen(pipe)["compile_regional"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device to offload from")
def test_offloading_without_a_device_says_so(pipe: Any) -> None:
    with pytest.raises(BackendError, match="needs a CUDA device"):
        offload_groups(pipe, onload_device="cuda", offload_type="leaf_level")
