"""Write a model directory: its own parts as float16 safetensors, the parts it shares as links into another model."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def store(thing: Any, folder: Path) -> None:
    """Save one part (a network as float16) with configuration, readable for everybody."""
    import torch

    if isinstance(thing, torch.nn.Module):
        thing = copy.deepcopy(thing).to("cpu", torch.float16)
    folder.mkdir(parents=True, exist_ok=True)
    thing.save_pretrained(str(folder))
    config = folder / "config.json"
    if config.exists():
        settings = {key: value for key, value in json.loads(config.read_text()).items() if key != "_name_or_path"}
        config.write_text(json.dumps(settings, indent=2) + "\n")
    for path in folder.iterdir():
        path.chmod(0o644)


def link(folder: Path, target: Path) -> None:
    """Let `folder` be a relative link to a part of another model."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_symlink():
        folder.unlink()
    folder.symlink_to(os.path.relpath(target, folder.parent.resolve()))


def write_directory(pipeline: Any, folder: Path, shared: Mapping[str, Path]) -> None:
    """Save a pipeline as a diffusers directory; components named in `shared` become links to their folders there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in pipeline.components.items():
        if part is None or not hasattr(part, "save_pretrained"):
            continue
        if name in shared:
            link(folder / name, shared[name])
        elif not (folder / name).is_symlink():
            store(part, folder / name)
    pipeline.save_config(str(folder))
    index = folder / "model_index.json"
    entries = {key: value for key, value in json.loads(index.read_text()).items() if key != "_name_or_path"}
    index.write_text(json.dumps(entries, indent=2) + "\n")
    index.chmod(0o644)
