"""How each transform is written in code: its line, when it comes, and whether a whole-pipeline engine can hold it.

A transform without a row here is a runtime function of its own name that changes a component in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class Phase(IntEnum):
    """When a transform runs: those of an earlier phase run first, on whatever component they stand."""

    IN_PLACE = 0
    CALL = 1
    """Changes the pipeline's call, not its parts."""
    PLAN = 2
    """Follows the schedule: the step plan, caches of features."""
    PLACEMENT = 3
    """Says where the parts lie; what is built later is built on it."""
    BUILT = 4
    """Makes something new of what stands there."""
    AROUND = 5
    """Goes round whatever runs in the end, engines too."""


@dataclass(frozen=True)
class Form:
    """How a transform is written.

    Args:
        function: the runtime function, where its name is not the transform's.
        code: a line of public API instead of a runtime function, with `{pipe}`, `{target}`, an argument's name, and
            `{arguments}` for all that are not named.
        imports: (module, name) pairs that `code` needs.
        names: (argument, module) pairs: the argument's text is a name of that module.
        folds: a whole-pipeline engine takes along what the transform did, so both may be.
        on_device: the pipeline is moved to its device first; not so for offloading, which moves parts itself.
    """

    phase: Phase = Phase.IN_PLACE
    function: str = ""
    code: str = ""
    imports: tuple[tuple[str, str], ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    folds: bool = True
    on_device: bool = True


FORMS: Mapping[str, Form] = {
    "attention_backend": Form(code="{pipe}.{target}.set_attention_backend({backend})"),
    "cache_dit": Form(Phase.PLAN, folds=False),
    "calibrate": Form(Phase.PLAN, folds=False),
    "capture_step": Form(Phase.BUILT, folds=False),
    "cast_layerwise": Form(
        code="{pipe}.{target}.enable_layerwise_casting(storage_dtype={storage}, compute_dtype={pipe}.{target}.dtype)",
        names=(("storage", "torch"),),
        folds=False,
    ),
    "channels_last": Form(
        code="{pipe}.{target}.to(memory_format=channels_last)", imports=(("torch", "channels_last"),)
    ),
    "compile": Form(Phase.BUILT, function="compile_component", folds=False),
    "compile_regional": Form(Phase.BUILT, code="{pipe}.{target}.compile_repeated_blocks(mode={mode})", folds=False),
    "constant_embeddings": Form(folds=False),
    "drop_safety_checker": Form(Phase.CALL),
    "export": Form(Phase.BUILT, folds=False),
    "context_parallel": Form(Phase.BUILT, folds=False),
    "distill_lora": Form(),
    "fuse_lora": Form(),
    "fuse_pipeline": Form(Phase.BUILT, folds=False),
    "freeze_cross_attention": Form(folds=False),
    "freeze_prompt": Form(folds=False),
    "fuse_geglu": Form(folds=False),
    "fuse_group_norm": Form(folds=False),
    "fuse_modulation": Form(folds=False),
    "fuse_qk_norm": Form(folds=False),
    "fuse_qkv": Form(code="{pipe}.{target}.fuse_qkv_projections()"),
    "half_precision": Form(folds=False),
    "hoist_cross_attention": Form(folds=False),
    "native_cache": Form(Phase.PLAN, folds=False),
    "open_cache_context": Form(Phase.PLAN, folds=False),
    "offload_groups": Form(
        Phase.PLACEMENT,
        folds=False,
        on_device=False,
    ),
    "offload_model": Form(Phase.AROUND, code="{pipe}.enable_model_cpu_offload()", folds=False, on_device=False),
    "offload_sequential": Form(
        Phase.PLACEMENT, code="{pipe}.enable_sequential_cpu_offload()", folds=False, on_device=False
    ),
    "quantize_fp8": Form(folds=False),
    "reuse_prompt_embeddings": Form(Phase.AROUND, folds=False),
    "trim_padding": Form(Phase.CALL),
    "unload_encoder": Form(folds=False),
    "slice_vae": Form(code="{pipe}.vae.enable_slicing()"),
    "tile_vae": Form(folds=False),
}


def form(transform: str) -> Form:
    """Return how a transform is written."""
    return FORMS.get(transform, Form())
