"""diffopt: an optimizing compiler for diffusion pipelines.

`compile` a script, a model directory or a built-in model; `load` the artifact it makes; `verify` it again elsewhere.
Nothing heavy is imported until one of them is called.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffopt.api import compile, lift, verify
    from diffopt.artifact import load
    from diffopt.ir.errors import DiffoptError

# ONNX Runtime reports over the network from its very import on; whoever imports it, here or in a worker, imports us first.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"
__all__ = ["DiffoptError", "__version__", "compile", "lift", "load", "verify"]

_HOMES = {
    "DiffoptError": "diffopt.ir.errors",
    "compile": "diffopt.api",
    "lift": "diffopt.api",
    "load": "diffopt.artifact",
    "verify": "diffopt.api",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'diffopt' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
