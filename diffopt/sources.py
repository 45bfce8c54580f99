"""What a user hands over: a script, a model directory, a hub id, a live pipeline, IR text, or a built-in model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar

from diffopt.ir.errors import DiffoptError

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from diffopt.bench.models import Builtin
    from diffopt.ir.description import PipelineDescription

IR_SUFFIXES = (".mlir", ".ir")
SCRIPT_SUFFIXES = (".py", ".ipynb")


@dataclass(frozen=True)
class Source:
    """A lifted source.

    Args:
        kind: `builtin`, `directory`, `hub`, `live`, `script` or `ir`.
        text: of the script, byte for byte as decoded; empty for the others.
        builtin: the built-in model, which brings prompts and a scorer.
    """

    name: str
    kind: str
    module: ModuleOp
    text: str = ""
    builtin: Builtin | None = None


def lift(source: object, settings: Mapping[str, str] | None = None, **call: str | float) -> Source:
    """Lift a source into the `diffusion` dialect; nothing of it is run.

    Args:
        source: path of a `.py` script, of a model directory or of IR text, a hub id, `demo:shapes`, or a pipeline object.
        settings: values for what cannot be known from the source, and changes to the call: `steps`, `guidance`,
            `height`, `width`; for a script, any name it leaves open; for a hub id that is not downloaded,
            `pipeline_class`; for a pipeline object, `model`, where to load it from.
        call: settings too, as keywords: `lift(pipe, steps=30)`.

    Raises:
        DiffoptError: no such source, or one that cannot be lifted; says where and what to do.
    """
    given = {**(settings or {}), **{key: str(value) for key, value in call.items()}}
    if not isinstance(source, str | Path):
        return _lift_live(source, given)
    name = str(source)
    if name.startswith("demo:"):
        return _lift_builtin(name, given)
    path = Path(source)
    if path.is_dir():
        from diffopt.ir.source_directory import describe_directory

        kind = given.pop("pipeline_class", "")
        described = describe_directory(path, class_name=kind, **_call_settings(given, name))
        return Source(name, "directory", _build(described))
    if not path.exists() and ("pipeline_class" in given or _downloaded(name)):
        from diffopt.ir.source_directory import describe_hub, with_call

        kind = given.pop("pipeline_class", "")
        if kind and not _downloaded(name):
            _check_kind(kind)
        described = describe_hub(name, kind)
        return Source(name, "hub", _build(with_call(described, **_call_settings(given, name))))
    check_exists(name, given)
    if path.suffix in IR_SUFFIXES:
        from diffopt.ir.identity import parse_module

        _refuse_rest(given, name)
        return Source(name, "ir", parse_module(read_text(path), name))
    from diffopt.ir.source_script import describe_script

    description = describe_script(path, settings=given)
    return Source(name, "script", _build(description), text=read_text(path))


def check_exists(source: str, settings: Mapping[str, str]) -> None:
    """Refuse a source that is not there, before anything that takes time to import.

    Raises:
        DiffoptError: neither a path, nor a built-in model, nor a hub id that is downloaded or whose class is given.
    """
    if source.startswith("demo:") or Path(source).exists() or "pipeline_class" in settings or _downloaded(source):
        return
    from diffopt.bench.models import shipped

    hint = (
        f"give a .py script, a directory with model_index.json, or a built-in model ({', '.join(shipped())}); "
        "a hub id that is not downloaded needs --set pipeline_class=NAME"
    )
    raise DiffoptError("no such file, model directory or built-in model", where=source, hint=hint)


def read_text(path: Path) -> str:
    """Read a UTF-8 text file with its line ends as they are.

    Raises:
        DiffoptError: it cannot be read or is no UTF-8 text.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise DiffoptError(f"not UTF-8 text (byte {error.start})", where=str(path)) from None
    except OSError as error:
        raise DiffoptError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _downloaded(name: str) -> bool:
    """Tell whether a hub id stands in the local cache."""
    from diffopt.ir.source_directory import hub_cache, snapshot

    return snapshot(name, hub_cache()) is not None


def _check_kind(kind: str) -> None:
    """Refuse a class that diffusers does not have, where nothing but the class tells of the model."""
    from diffopt.ir.pipeline_classes import pipeline_class, pipeline_classes

    if pipeline_class(kind) is None:
        close = difflib.get_close_matches(kind.rpartition(".")[2], pipeline_classes(), 1)
        hint = f"did you mean {close[0]}?" if close else "give a pipeline class of the installed diffusers"
        raise DiffoptError(f"diffusers has no pipeline {kind!r}", where="--set pipeline_class", hint=hint)


def _lift_live(pipe: object, settings: dict[str, str]) -> Source:
    from diffopt.ir.source_live import describe_live

    model = settings.pop("model", "")
    name = f"a live {type(pipe).__name__}"
    return Source(name, "live", _build(describe_live(pipe, model=model, **_call_settings(settings, name))))


def _lift_builtin(name: str, settings: dict[str, str]) -> Source:
    from diffopt.bench.models import builtin, describe, shipped

    model = builtin(name)
    if model is None:
        raise DiffoptError("no such built-in model", where=name, hint=f"there is {', '.join(shipped())}")
    description = describe(model, **_call_settings(settings, name))
    return Source(name, "builtin", _build(description), builtin=model)


def lift_all(source: str, settings: Mapping[str, str] | None = None) -> ModuleOp:
    """Lift a source whole: of a script that calls several pipelines, one nested module for each, in their order.

    Raises:
        DiffoptError: as `lift` does.
    """
    given = dict(settings or {})
    if Path(source).suffix in SCRIPT_SUFFIXES and Path(source).is_file() and "pipeline" not in given:
        from diffopt.ir.description import build_chain
        from diffopt.ir.source_script import describe_project

        described = describe_project(source, settings=given)
        return build_chain(described) if len(described) > 1 else _build(described[0])
    return lift(source, given).module


def _build(description: PipelineDescription) -> ModuleOp:
    from diffopt.ir.description import build_module

    return build_module(description)


N = TypeVar("N", int, float)


class _Call(TypedDict, total=False):
    steps: int
    guidance: float
    height: int
    width: int


def _call_settings(settings: Mapping[str, str], where: str) -> _Call:
    call = _Call()
    for key, text in settings.items():
        match key:
            case "guidance":
                call["guidance"] = _number(float, key, text, where)
            case "steps" | "height" | "width":
                call[key] = _number(int, key, text, where)
            case _:
                known = ", ".join(_Call.__annotations__)
                raise DiffoptError(f"unknown setting {key!r}", where=where, hint=f"known: {known}")
    return call


def _number(kind: type[N], key: str, text: str, where: str) -> N:
    try:
        value = kind(text)
    except ValueError:
        raise DiffoptError(f"setting {key}={text!r} is no number of type {kind.__name__}", where=where) from None
    if not (0 if kind is float else 1) <= value < 1e6:
        raise DiffoptError(f"setting {key}={text} is out of range", where=where)
    return value


def _refuse_rest(settings: Mapping[str, str], where: str) -> None:
    if settings:
        raise DiffoptError(f"--set {next(iter(settings))} does not apply to IR text", where=where, hint="edit the text")
