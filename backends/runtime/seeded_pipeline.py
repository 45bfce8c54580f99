"""Build a pipeline from its configuration files alone, with seeded random weights made on the device."""

from __future__ import annotations

import contextlib
import importlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from diffopt.backends.base import BackendError

Pipe = TypeVar("Pipe")
CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json")


def seeded_pipeline(pipeline_class: type[Pipe], model: str, *, device: str, dtype: Any, seed: int = 0) -> Pipe:
    """Return a pipeline of the architecture that a model directory describes; no weights are read.

    The same seed gives the same weights on the same kind of device. Latency and memory are those of the real model;
    images are noise.

    Args:
        model: directory with `model_index.json` and one configuration file a component.
        device: where the weights are drawn, so that nothing is copied there.
        dtype: of the weights of all components.

    Raises:
        BackendError: a configuration is missing, or a component's library is neither diffusers nor transformers.
    """
    root = Path(model)
    index = _read(root / "model_index.json")
    parts: dict[str, Any] = {}
    for name, entry in index.items():
        if name.startswith("_") or not isinstance(entry, list):
            continue
        library, class_name = entry
        if library is None:
            parts[name] = None
        elif "Tokenizer" in class_name:
            parts[name] = _tokenizer(_config(root / name))
        else:
            own = seed + zlib.crc32(name.encode())
            parts[name] = _component(library, class_name, _config(root / name), device, dtype, own)
    settings = {key: value for key, value in index.items() if not key.startswith("_") and not isinstance(value, list)}
    settings = {key: value for key, value in settings.items() if not key.startswith("seeded_")}
    pipe: Any = pipeline_class(**parts, **settings)
    pipe.register_to_config(_name_or_path=str(root))
    made: Pipe = pipe
    return made


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackendError(f"{path} cannot be read: {error}", "write the model directory again") from None
    return found


def _config(folder: Path) -> dict[str, Any]:
    for name in CONFIGS:
        if (folder / name).is_file():
            return _read(folder / name)
    raise BackendError(f"{folder} holds no configuration", f"one of {', '.join(CONFIGS)}")


def _component(library: str, class_name: str, config: dict[str, Any], device: str, dtype: Any, seed: int) -> Any:
    import torch

    if library not in ("diffusers", "transformers"):
        raise BackendError(f"components of {library!r} cannot be made from a configuration")
    kind = getattr(importlib.import_module(library), class_name)
    if not hasattr(kind, "dtype"):
        return kind.from_config(config)
    torch.manual_seed(seed)
    with torch.device(device), torch.no_grad(), _default_dtype(dtype):
        module = kind.from_config(config) if library == "diffusers" else kind(kind.config_class(**config))
        _draw(module, torch.Generator(device).manual_seed(seed))
        wide = set(getattr(module, "_keep_in_fp32_modules", None) or ())
        for path, value in module.named_parameters():
            value.data = value.data.to(device)
            if value.is_floating_point() and not wide & set(path.split(".")):
                value.data = value.data.to(dtype)
        # Anew, as a buffer may be a view of one in another dtype, which the compiler does not take.
        for path, part in module.named_modules():
            for name, value in part._buffers.items():
                if value is not None:
                    narrow = value.is_floating_point() and not wide & {*path.split("."), name}
                    part._buffers[name] = value.to(device=device, dtype=dtype if narrow else value.dtype)
    return module.eval().requires_grad_(False)


@contextlib.contextmanager
def _default_dtype(dtype: Any) -> Iterator[None]:
    """Make weights in their own dtype at once: twice as many bytes might not fit beside other models."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _draw(module: Any, generator: Any) -> None:
    """Draw the matrices anew so that each layer keeps the variance of what enters it: no value dies out or overflows."""
    from torch import nn

    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d):
            part.weight.normal_(0, part.weight[0].numel() ** -0.5, generator=generator)


def _tokenizer(config: dict[str, Any]) -> Any:
    """Return a tokenizer of bytes: no vocabulary can be had without a download, and lengths are what matters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: config["first_id"] + place for place, letter in enumerate(letters)}
    names = ("bos_token", "eos_token", "pad_token")
    special = {name: (str(config[name]), int(config[f"{name}_id"])) for name in names if name in config}
    vocabulary |= dict(special.values())
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    bos, eos = special.get("bos_token"), special["eos_token"]
    template = f"{bos[0] + ' ' if bos else ''}$A {eos[0]}"
    made.post_processor = processors.TemplateProcessing(single=template, special_tokens=[s for s in (bos, eos) if s])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=config["model_max_length"],
        **{name: text for name, (text, _) in special.items()},
    )
