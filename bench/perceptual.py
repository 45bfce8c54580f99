"""LPIPS in pairs, where the extra `[metrics]` is installed and its weights are on this machine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffopt.bench.resident import Images
from diffopt.ir.errors import DiffoptError


def lpips_distances(images: Images, references: Images, *, network: str = "alex") -> npt.NDArray[np.float64]:
    """Return the LPIPS distance of each pair (Zhang and others 2018): 0 for equal images, about 0.7 for unrelated ones.

    Raises:
        DiffoptError: the package or its weights are not here.
    """
    import torch

    try:
        import lpips
    except ImportError:
        raise DiffoptError("LPIPS is not installed", hint="pip install 'diffopt[metrics]' torchvision") from None
    try:
        model = lpips.LPIPS(net=network, verbose=False).eval()
    except OSError as error:
        raise DiffoptError(f"the weights of LPIPS are not here ({error})", hint="run it once with a network") from None
    with torch.no_grad():
        pairs = (
            torch.from_numpy(np.ascontiguousarray(part)).permute(0, 3, 1, 2) * 2 - 1 for part in (images, references)
        )
        return np.asarray(model(*pairs).reshape(-1).numpy(), dtype=np.float64)
