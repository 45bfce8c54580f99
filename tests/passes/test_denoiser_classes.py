"""The lists of denoiser classes are what the installed diffusers has."""

from __future__ import annotations

import pytest

from diffopt.passes import denoiser_classes


@pytest.mark.slow
def test_each_class_has_what_its_list_says() -> None:
    import diffusers

    for name in denoiser_classes.FUSES_QKV:
        assert hasattr(getattr(diffusers, name), "fuse_qkv_projections"), name
    for name in denoiser_classes.REPEATS_BLOCKS:
        assert getattr(diffusers, name)._repeated_blocks, name
    for name in (*denoiser_classes.DISPATCHES, *denoiser_classes.MASKED):
        assert hasattr(getattr(diffusers, name), "set_attention_backend"), name
    for name in denoiser_classes.SPLITS_SEQUENCES:
        assert getattr(diffusers, name)._cp_plan, name
    assert set(denoiser_classes.MASKED) <= set(denoiser_classes.DISPATCHES)
