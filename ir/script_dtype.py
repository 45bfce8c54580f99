"""The floating point type that a script gives its pipeline."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from diffopt.ir.script_arguments import argument
from diffopt.ir.script_choice import Choice
from diffopt.ir.script_kinds import Known, Missing, Symbol, Value
from diffopt.ir.script_models import source_of
from diffopt.ir.script_pipelines import Pipelines


def dtype_of(pipelines: Pipelines, choice: Choice, depth: int = 0) -> Value | None:
    """Return what the construction, `.to(...)` or `.half()` give; `None` where none gives any."""
    values, sites = pipelines.values, set(choice.sites)
    known: list[Value] = []
    for site in choice.sites:
        source = source_of(pipelines, site)
        # `DiffusionPipeline.from_pipe` itself casts to float32 unless told otherwise; the others share what is there
        shares = not site.loader or "AutoPipeline" in site.pipeline_class
        if source is not None and shares and depth < 4:
            inherited = dtype_of(pipelines, Choice((source,), ()), depth + 1)
            known += [inherited] if inherited is not None else []
        given = argument(values, site.call, "dtype") or argument(values, site.call, "torch_dtype")
        if given is not None and not (isinstance(given, Missing) and source is not None):
            known.append(given if isinstance(given, Missing) else values.of(given.value))
    for name in ("to", "half"):
        for call in values.calls_by_name.get(name, ()):
            if isinstance(call.func, cst.Attribute) and pipelines.of(call.func.value) & sites:
                known += _cast(pipelines, call, name)
    if not known:
        return None
    value = values.agree(known[-1:] if len(choice.sites) == 1 else known, choice.sites[0].call)
    if isinstance(value, Known) and isinstance(value.value, dict):
        return Known(value.value.get("default", next(iter(value.value.values()), None)), value.origin)
    return value


def _cast(pipelines: Pipelines, call: cst.Call, name: str) -> Iterator[Value]:
    if name == "half":
        yield Known(Symbol("torch.float16"), call)
    for arg in call.args:
        value = pipelines.values.of(arg.value)
        if isinstance(value, Known) and isinstance(value.value, Symbol) and "float" in value.value.name:
            yield value
