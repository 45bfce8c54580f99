"""Context parallelism is refused with what to do, where there are not as many processes; it was not run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from diffopt.backends.base import BackendError
from diffopt.backends.runtime import context_parallel


def test_says_how_to_start_as_many_processes(tiny_of: Callable[[str], Any]) -> None:
    pipe, _ = tiny_of("flux")
    with pytest.raises(BackendError, match="torchrun --nproc-per-node 2"):
        context_parallel(pipe, "transformer", gpus=2)
