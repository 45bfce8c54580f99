"""LPIPS in pairs, where the extra `[metrics]` is installed and its weights are on this machine."""

from __future__ import annotations

import importlib.util

import numpy as np
import numpy.typing as npt

from diffopt.bench.fidelity import Distances
from diffopt.bench.resident import Images

_BACKBONE = "alexnet-owt-7be5be79.pth"
_BATCH = 16


def distances_here() -> Distances | None:
    """Return LPIPS (AlexNet) if the packages and its weights are on this machine, or None; nothing is downloaded."""
    if any(importlib.util.find_spec(name) is None for name in ("lpips", "torchvision")):
        return None
    from pathlib import Path

    import torch

    return lpips_distances if (Path(torch.hub.get_dir()) / "checkpoints" / _BACKBONE).is_file() else None


def lpips_distances(images: Images, references: Images) -> npt.NDArray[np.float64]:
    """Return the LPIPS distance of each pair (Zhang and others 2018): 0 for equal images, about 0.7 for unrelated ones."""
    import lpips
    import torch

    model = lpips.LPIPS(net="alex", verbose=False).eval()
    found = []
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            pair = (
                torch.from_numpy(np.ascontiguousarray(part[start : start + _BATCH])).permute(0, 3, 1, 2) * 2 - 1
                for part in (images, references)
            )
            found.append(model(*pair).reshape(-1).numpy())
    return np.concatenate(found).astype(np.float64)
