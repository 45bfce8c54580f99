"""Whether a program's first images can be the baseline's at all: a quick look before all images are made."""

from __future__ import annotations

import numpy as np

from diffopt.bench.fidelity import Scorer, psnr
from diffopt.bench.images import repeats
from diffopt.bench.references import References
from diffopt.bench.resident import Images
from diffopt.bench.statistics import median


def unlike(made: Images, known: References, scorer: Scorer | None) -> str | None:
    """Say why images are no nearer to the baseline's than another seed's and show less of their prompts, or None."""
    if repeats(made):
        return "different prompts and seeds give the same image"
    count, unrelated = len(made), median(psnr(known.others, known.images).tolist())
    near = median(psnr(made, known.images[:count]).tolist())
    if near >= unrelated:
        return None
    if scorer is not None:
        prompts = known.prompts[:count]
        expected = np.mean(scorer.correct(known.images[:count], prompts))
        if np.mean(scorer.correct(made, prompts)) >= expected / 2:
            return None
    return f"images unlike the baseline's: {near:.1f} dB, other seeds of it give {unrelated:.1f} dB"
