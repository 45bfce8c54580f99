"""Cut the padding of prompts off before the denoiser sees it."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import attachment

Pipe = TypeVar("Pipe")
TRIMMED = "_diffopt_trimmed"


def trim_padding(pipe: Pipe, *, multiple: int = 16) -> Pipe:
    """Shorten what `encode_prompt` returns, embeddings and masks, to the longest prompt of the request.

    multiple: lengths are rounded up to it, so that few shapes occur. Only for pipelines whose denoiser masks the padding,
    which return (embeddings, mask, negative embeddings, negative mask). Raises BackendError if it is so already.
    """
    state = attachment(pipe)
    if TRIMMED in pipe.__dict__:
        raise BackendError("the padding is cut off already")
    original: Any = getattr(pipe, "encode_prompt", None)
    if original is None:
        raise BackendError(f"{type(pipe).__name__} encodes no prompt by itself")
    counts = {"requests": 0, "before": 0, "after": 0}

    @functools.wraps(original)
    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        masks = [found[1], found[3]] if isinstance(found, tuple) and len(found) == 4 else []
        given = [mask for mask in masks if mask is not None]
        if not given or any(mask.ndim != 2 for mask in given):
            state.say_once("the padding stays: the pipeline says not what is padding")
            return found
        before = max(mask.shape[1] for mask in given)
        length = min(-(-max(map(_length, given)) // multiple) * multiple, before)
        for key, more in (("requests", length < before), ("before", before), ("after", length)):
            counts[key] += state.counting * int(more)
        return tuple(value if value is None else value[:, :length] for value in found)

    pipe.__dict__[TRIMMED] = True
    pipe.__dict__["encode_prompt"] = encode_prompt
    state.note("pipeline", "trim_padding", multiple=multiple)
    state.witnesses.append(
        lambda: Witness(
            "trim_padding", counts["requests"], f"{counts['after']} instead of {counts['before']} tokens of prompts"
        )
    )
    return pipe


def _length(mask: Any) -> int:
    """Return the place after the last token that counts in any row."""
    used = mask.bool().any(dim=0).nonzero()
    return int(used.max()) + 1 if len(used) else 1
