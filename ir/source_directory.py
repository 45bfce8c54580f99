"""Lift a model: a directory, or a hub id by what the local cache and the class's own source say of it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from diffopt.ir.description import (
    DENOISERS,
    JSON,
    OTHER_DENOISERS,
    ComponentDescription,
    PipelineDescription,
    Unknown,
    vae_scale,
)
from diffopt.ir.errors import DiffoptError
from diffopt.ir.model_index import CONFIG_FILES, ModelIndex, read_index
from diffopt.ir.pipeline_classes import PipelineClass, pipeline_class, pipeline_classes
from diffopt.ir.pipeline_sources import pipelines_root
from diffopt.ir.roles import GUIDANCE

__all__ = [
    "CONFIG_FILES",
    "call_defaults",
    "describe_directory",
    "describe_hub",
    "describe_index",
    "describe_model",
    "with_call",
]

STEPS = ("num_inference_steps", "steps", "decoder_num_inference_steps", "prior_num_inference_steps")
"""Names of the call's argument for steps; the first that a class has counts."""

MOST_BLOCKS = 16
"""Each block of a VAE halves the picture; the largest of diffusers has seven."""

TEXT_PARTS = re.compile(r"(text_encoder|tokenizer)(_\d+)?$")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?$")


def describe_directory(
    path: str | Path,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    height: int | None = None,
    width: int | None = None,
    name: str = "",
    class_name: str = "",
) -> PipelineDescription:
    """Describe the pipeline saved in a directory.

    Args:
        path: directory with a `model_index.json`, as `save_pretrained` writes it.
        class_name: pipeline class to read it as; empty for the one that it names.
        steps, guidance, height, width: the call to optimize; what is left out is the pipeline class's own default.

    Raises:
        DiffoptError: the path or a file in it is missing or not what it should be.
    """
    root = Path(path)
    index = read_index(root)
    if class_name and pipeline_class(class_name) is not None:
        index = replace(index, pipeline_class=class_name.rpartition(".")[2])
    _check_class(index.pipeline_class, root)
    described = describe_index(index, str(root.resolve()), name or root.resolve().name)
    return with_call(described, steps=steps, guidance=guidance, height=height, width=width)


def describe_hub(model_id: str, class_name: str = "", *, cache_folder: Path | None = None) -> PipelineDescription:
    """Describe a pipeline of the hub without asking the network.

    What stands in the local hub cache is read; else the class's own signature says which components there are, their
    configurations are empty, and height and width are not known.

    Args:
        model_id: as `owner/name`.
        class_name: pipeline class; empty where the cache must tell.
        cache_folder: of the hub; by default where `huggingface_hub` keeps it.

    Raises:
        DiffoptError: the model is not in the cache and no class of the installed diffusers is named.
    """
    folder = snapshot(model_id, cache_folder or hub_cache())
    if folder is not None:
        index = read_index(folder)
        if pipeline_class(class_name) is None:
            _check_class(index.pipeline_class, folder)
        described = describe_index(index, model_id, model_id.rpartition("/")[2])
        return described if not class_name else _as_class(described, class_name)
    known = pipeline_class(class_name) if class_name else None
    if class_name and known is None:
        return PipelineDescription("pipeline", _dotted(class_name), model_id, (), 50, 0.0, None, None)
    if known is None:
        raise DiffoptError(
            "the model is not in the local hub cache, and no pipeline class is named",
            where=model_id,
            hint=f"download it: hf download {model_id}",
        )
    # Optional text encoders are for calls that give embeddings; a script that leaves them out says so.
    required = [part for part in known.components if part not in known.optional or TEXT_PARTS.match(part)]
    if not any(part in DENOISERS + OTHER_DENOISERS for part in required):
        # A class made for one expert or two has both as optional; a model has the first at least.
        required += [part for part in DENOISERS if part in known.components][:1]
    # Where a scheduler may be left out, the class makes one.
    required += [part for part in ("scheduler",) if part in known.components]
    parts = tuple(
        ComponentDescription(part, classes[0] if classes else "diffusers.ModelMixin", {})
        for part, classes in known.components.items()
        if part in required
    )
    name = model_id.rstrip("/").rpartition("/")[2] or known.name
    return describe_index(ModelIndex(known.name, parts, {}), model_id, name, sized=False)


def describe_model(model: str, class_name: str, where: str) -> PipelineDescription:
    """Describe a model by its directory or hub id, read as a pipeline of a class; `class_name` may be empty.

    Raises:
        DiffoptError: it is a directory that holds no pipeline, or neither on disk nor of a known class.
    """
    if model and Path(model).is_dir():
        return describe_directory(model, class_name=class_name)
    try:
        return describe_hub(model, class_name)
    except DiffoptError as error:
        raise DiffoptError(error.message, where=where or error.where, hint=error.hint) from None


def describe_index(index: ModelIndex, model: str, name: str, *, sized: bool = True) -> PipelineDescription:
    """Describe a pipeline from its class and components, with the class's own defaults for the call."""
    known = pipeline_class(index.pipeline_class)
    call: Mapping[str, object] = known.call if known else {}
    steps = _first(call, STEPS)
    guidance = _first(call, tuple(key for key in GUIDANCE if key in call)[:1])
    unknowns: tuple[Unknown, ...] = ()
    if steps is None and any(key in call for key in STEPS):
        reason = f"{index.pipeline_class} has no constant default for it"
        unknowns = (Unknown("steps", None, reason),)
    guides = not call or any(key in call for key in GUIDANCE)
    height, width = _size(known, index, sized)
    # A directory of configurations alone says what its made weights are to be.
    dtype = str(index.settings.get("seeded_dtype", "float32"))
    return PipelineDescription(
        name=name,
        pipeline_class=_dotted(index.pipeline_class),
        model=model,
        components=index.components,
        steps=int(steps) if steps is not None else 1 if call and not unknowns else 50,
        guidance=float(guidance) if guidance is not None else 7.5 if not call else 1.0 if guides else 0.0,
        height=height,
        width=width,
        dtype=dtype,
        settings=index.settings,
        unknowns=unknowns,
    )


def with_call(
    described: PipelineDescription,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    height: int | None = None,
    width: int | None = None,
) -> PipelineDescription:
    """Change the call of a description; `None` leaves a value as it is."""
    return replace(
        described,
        steps=steps if steps is not None else described.steps,
        guidance=guidance if guidance is not None else described.guidance,
        height=height if height is not None else described.height,
        width=width if width is not None else described.width,
        unknowns=tuple(u for u in described.unknowns if not (u.name == "steps" and steps is not None)),
    )


@cache
def call_defaults(class_name: str) -> Mapping[str, float]:
    """Return the numeric defaults of a pipeline's `__call__`."""
    known = pipeline_class(class_name)
    return {
        key: number for key, value in (known.call if known else {}).items() if (number := _number(value)) is not None
    }


def hub_cache() -> Path:
    """Return the folder where `huggingface_hub` keeps what it has downloaded."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def snapshot(model_id: str, cache_folder: Path) -> Path | None:
    """Return the newest downloaded snapshot of a hub id that holds a `model_index.json`."""
    if not HUB_ID.match(model_id):
        return None
    folder = cache_folder / f"models--{model_id.replace('/', '--')}"
    head = folder / "refs" / "main"
    wanted = head.read_text(encoding="utf-8").strip() if head.is_file() else ""
    found = sorted(folder.glob("snapshots/*/model_index.json"), key=lambda file: file.parent.name != wanted)
    return found[0].parent if found else None


def _check_class(name: str, root: Path) -> None:
    """Refuse a saved class that the installed diffusers does not have."""
    if pipeline_class(name) is not None:
        return
    near = difflib.get_close_matches(name, pipeline_classes(), 1, 0.5)
    raise DiffoptError(
        f"the installed diffusers has no pipeline class {name!r}",
        where=str(root / "model_index.json"),
        hint=(f"the nearest is {near[0]}; " if near else "") + "read it as another with --set pipeline_class=NAME",
    )


def _as_class(described: PipelineDescription, class_name: str) -> PipelineDescription:
    """Read a saved pipeline as another class: its own call defaults, the components that stand in the index."""
    own = described.pipeline_class.rpartition(".")[2]
    if class_name.rpartition(".")[2] == own or pipeline_class(class_name) is None:
        return described
    index = ModelIndex(class_name.rpartition(".")[2], described.components, described.settings)
    return describe_index(index, described.model, described.name)


def _dotted(class_name: str) -> str:
    return class_name if "." in class_name else f"diffusers.{class_name}"


def _number(value: object) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _first(call: Mapping[str, object], names: tuple[str, ...]) -> int | float | None:
    return next((number for key in names if (number := _number(call.get(key))) is not None), None)


def _size(known: PipelineClass | None, index: ModelIndex, sized: bool) -> tuple[int | None, int | None]:
    """Return height and width in pixels: the call's defaults, or the denoiser's sample size times the VAE's scale."""
    if known is not None:
        given = (_number(known.call.get("height")), _number(known.call.get("width")))
        if given[0] is not None and given[1] is not None:
            return int(given[0]), int(given[1])
        if "height" not in known.call or "image" in known.call or not sized:
            return None, None
    configs = {part.name: part.config for part in index.components}
    denoiser: Mapping[str, JSON] = configs.get("unet") or configs.get("transformer") or {}
    blocks = configs.get("vae", {}).get("block_out_channels")
    if isinstance(blocks, list) and len(blocks) > MOST_BLOCKS:
        raise DiffoptError(f"a VAE of {len(blocks)} blocks is none", where=f"{index.pipeline_class}: vae/config.json")
    scale = vae_scale(configs.get("vae", {})) or 8
    sample = denoiser.get("sample_size")
    if isinstance(sample, list) and len(sample) == 2 and all(isinstance(s, int) for s in sample):
        height, width = (int(s) for s in sample if isinstance(s, int))
        return height * scale, width * scale
    side = sample if isinstance(sample, int) and not isinstance(sample, bool) else _sample_size(known)
    if side is None:
        side = 64 if "unet" in configs or known is None else None
    return (side * scale, side * scale) if side is not None else (None, None)


def _sample_size(known: PipelineClass | None) -> int | None:
    """Return the sample size that a pipeline's source fixes, as `self.default_sample_size = 128`."""
    root = pipelines_root()
    if known is None or root is None:
        return None
    found = re.search(
        r"self\.default_sample_size = (\d+)$", (root.parent / known.file).read_text("utf-8"), re.MULTILINE
    )
    return int(found[1]) if found else None
