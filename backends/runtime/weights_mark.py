"""Tell whether a module's weights are still those that something remembered was computed with."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any


def weights_mark(modules: Iterable[Any]) -> Hashable:
    """Return a mark that changes when weights are replaced, moved, or changed in place, or an adapter's scale is.

    Cheap: it looks at where tensors lie and how often they were written to, not at what is in them.
    """
    marks: list[Hashable] = []
    for module in modules:
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            version = None if value.is_inference() else value._version
            marks.append((name, value.data_ptr() if value.device.type != "meta" else 0, version, value.dtype))
        for part in module.modules():
            scaling = getattr(part, "scaling", None)
            if isinstance(scaling, dict):
                marks.append(
                    (str(scaling), str(getattr(part, "active_adapters", "")), bool(getattr(part, "merged", 0)))
                )
    return hash(tuple(marks))


def being_traced() -> bool:
    """Tell whether a compiler or an exporter looks on: what is remembered would become a constant of its code."""
    import torch

    return bool(torch._C._get_tracing_state()) or torch.compiler.is_compiling() or torch.compiler.is_exporting()
