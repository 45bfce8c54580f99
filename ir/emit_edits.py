"""Write a module into the user's own script: the smallest edits that make its pipeline the one of the module."""

from __future__ import annotations

import io
import tokenize
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import libcst as cst
from xdsl.dialects.builtin import ModuleOp, StringAttr

from diffopt.ir.description import spans_of
from diffopt.ir.dialect import components, loops, scheduler_of
from diffopt.ir.emit_statements import RUNTIME, Statement, call_arguments, literal, needs_size, statements
from diffopt.ir.errors import DiffoptError
from diffopt.ir.script_choice import Choice, choose
from diffopt.ir.script_imports import Imports, Pair, imports
from diffopt.ir.script_insertion import NewLine, insert
from diffopt.ir.script_lines import Edit, Lines, apply_edits, moved
from diffopt.ir.script_notebook import notebook_edits, parse_notebook
from diffopt.ir.script_order import carried, check_order
from diffopt.ir.script_outcome import check_outcome
from diffopt.ir.script_patch import unified_patch
from diffopt.ir.script_pipelines import Pipelines
from diffopt.ir.script_placement import Place, places
from diffopt.ir.script_project import NOTEBOOK, open_script
from diffopt.ir.script_rewrites import Wanted, comments_last, rewrite
from diffopt.ir.script_text import Part, Script, join, parse_script, read_whole
from diffopt.ir.verify import SIZE, Stage, verify

__all__ = ["Edit", "apply_edits", "emit_edits", "emit_project_edits", "unified_patch"]

BYTE_ORDER_MARK = "\ufeff"


def emit_edits(
    module: ModuleOp,
    source_text: str,
    *,
    path: str | Path = "script.py",
    engines: str = "engines",
    pipeline: str = "",
    bought: Mapping[str, str] | None = None,
) -> tuple[Edit, ...]:
    """Return the edits that bring a module's passes into the script it was lifted from.

    A module as lifted gives no edits, and so does a script that has them already.

    Args:
        source_text: the script, byte for byte as decoded.
        path: of the script; relative paths in it are seen from there.
        engines: folder for compiled engines, as the patched script should name it.
        pipeline: which one is meant, where the script has several.
        bought: what each pass was measured to buy, for the comments, as `1.8x, 47 dB`.

    Raises:
        DiffoptError: the script no longer fits the module, or builds its pipeline where nothing can be put in,
            carries an earlier patch with other passes, or sets up again what a pass changes.
    """
    offset = len(BYTE_ORDER_MARK) if source_text.startswith(BYTE_ORDER_MARK) else 0
    text = source_text[offset:]
    notebook = str(path).endswith(NOTEBOOK)
    if not _statements(module):
        return ()
    script = join([parse_notebook(text, str(path))]) if notebook else parse_script(text, path)
    edits = _edits(module, script, engines, pipeline, bought or {})
    edits = notebook_edits(text, edits, str(path)) if notebook else edits
    return tuple(moved(edit, offset) for edit in edits)


def emit_project_edits(
    module: ModuleOp,
    path: str | Path,
    *,
    engines: str = "engines",
    pipeline: str = "",
    bought: Mapping[str, str] | None = None,
) -> dict[str, tuple[Edit, ...]]:
    """Return the edits of each file of a project, by its path, that bring a module's passes into the project.

    Args:
        path: of the script that is run, as it was lifted; the files it imports are read beside it.

    Raises:
        DiffoptError: a file cannot be read or no longer fits the module.
    """
    if not _statements(module):
        return {}
    script = open_script(path)
    every = _edits(module, script, engines, pipeline, bought or {})
    found: dict[str, tuple[Edit, ...]] = {}
    ends = [part.base - 1 for part in script.parts[1:]] + [len(script.text)]
    for part, end in zip(script.parts, ends, strict=True):
        own = [edit for edit in every if part.base <= edit.start <= end]
        edits = [moved(replace(edit, end=min(edit.end, end)), -part.base) for edit in own]
        if not edits:
            continue
        whole = read_whole(part.path)
        offset = len(BYTE_ORDER_MARK) if whole.startswith(BYTE_ORDER_MARK) else 0
        if part.path.endswith(NOTEBOOK):
            edits = list(notebook_edits(whole[offset:], edits, part.path))
        found[part.path] = tuple(moved(edit, offset) for edit in edits)
    return found


def _statements(module: ModuleOp) -> tuple[Statement, ...]:
    sized = needs_size(module)
    broken = [each for each in verify(module, Stage.EMITTABLE) if sized or each.rule != SIZE]
    if broken:
        raise DiffoptError(f"{broken[0].message} [{broken[0].rule}]", where=broken[0].where)
    return statements(module)


def _edits(
    module: ModuleOp, script: Script, engines: str, pipeline: str, bought: Mapping[str, str]
) -> tuple[Edit, ...]:
    wanted_statements = statements(module)
    lines = Lines.of(script)
    pipelines = Pipelines(script)
    try:
        choice = _choice(pipelines, module, pipeline)
        wanted = _wanted_arguments(module)
        told = [replace(item, origin=_told(item.origin, bought)) for item in wanted]
        edits, complete = rewrite(pipelines, lines, choice, told, components(module)["pipeline"].class_name.data)
        if not complete:
            wanted_statements += (_call_defaults(wanted),) if wanted else ()
        all_places = places(pipelines, choice)
        for part, found in _by_part(script, all_places).items():
            own = [site.call for site in choice.sites if script.part(site.call) is part]
            first = min((*own, *(place.unit for place in found)), key=script.start)
            known = _imports(pipelines, lines, wanted_statements, first, bought)
            edits += known.edits
            for place in found:
                new = [_line(statement, place.pipe, engines, known, bought) for statement in wanted_statements]
                edits += insert(script, lines, place, new)
        if edits:
            _check_carried(pipelines, choice)
            check_order(pipelines, choice, all_places, wanted_statements)
            given = {item.keyword: item.value for item in wanted} if complete else {}
            check_outcome(pipelines, choice, comments_last(edits), module, given)
    except RecursionError:
        raise DiffoptError("too involved to be edited", where=script.path) from None
    return tuple(comments_last(edits))


def _check_carried(pipelines: Pipelines, choice: Choice) -> None:
    """Refuse a script with statements of an earlier patch: what it had been before cannot be read off it."""
    earlier = carried(pipelines, choice)
    if earlier is not None:
        where = pipelines.script.where(earlier)
        line = where.rpartition(":")[2]
        raise DiffoptError(
            f"the script carries a patch of diffopt already (line {line})",
            where=where,
            hint="take it back with `git apply -R` first",
        )


def _by_part(script: Script, found: list[Place]) -> dict[Part, list[Place]]:
    parts: dict[Part, list[Place]] = {}
    for place in found:
        parts.setdefault(script.part(place.unit), []).append(place)
    return parts


def _told(origin: str, bought: Mapping[str, str]) -> str:
    """Return the passes of a change with what each one bought."""
    passes = [name for name in origin.split(", ") if name]
    return ", ".join(f"{name} ({bought[name]})" if name in bought else name for name in passes)


def _choice(pipelines: Pipelines, module: ModuleOp, name: str) -> Choice:
    """Return the pipeline the module was lifted from: by the user's word, by its place, or by its name."""
    if name:
        return choose(pipelines, name)
    symbol = module.sym_name.data if module.sym_name is not None else ""
    span = spans_of(module).get("construct")
    named = [site for site in pipelines.sites.values() if symbol in map(_as_symbol, site.names)]
    for site in named:
        start = pipelines.script.span(site.chained)
        if span is not None and (start.line, start.column) == (span.line, span.column):
            return choose(pipelines, site.names[-1])
    chosen = next((n for site in named for n in site.names if _as_symbol(n) == symbol), "")
    return choose(pipelines, chosen)


def _as_symbol(name: str) -> str:
    """Return a name as `build_module` writes it, without what holds it."""
    last = name.rpartition(".")[2]
    return "".join(c if (c.isascii() and c.isalnum()) or c == "_" else "_" for c in last)


def _wanted_arguments(module: ModuleOp) -> list[Wanted]:
    """Return the call arguments that passes changed."""
    arguments = call_arguments(module)
    changed: Mapping[str, str] = {
        "num_inference_steps": _origin(scheduler_of(module)),
        "guidance_scale": _origin(loops(module)[0]) if all(loop.guide is None for loop in loops(module)) else "",
    }
    return [
        Wanted(key, arguments[key], literal(arguments[key]), origin)
        for key, origin in changed.items()
        if origin and key in arguments
    ]


def _origin(op: object) -> str:
    attribute = getattr(op, "attributes", {}).get("origin")
    return attribute.data if isinstance(attribute, StringAttr) else ""


def _call_defaults(wanted: list[Wanted]) -> Statement:
    given = ", ".join(f"{item.keyword}={item.code}" for item in wanted)
    origin = ", ".join(dict.fromkeys(item.origin for item in wanted))
    return Statement(origin, ((RUNTIME, "call_defaults"),), f"call_defaults({{pipe}}, {given})")


def _imports(
    pipelines: Pipelines,
    lines: Lines,
    found: tuple[Statement, ...],
    first: cst.CSTNode,
    bought: Mapping[str, str],
) -> Imports:
    needed: dict[Pair, str] = {}
    for statement in found:
        for pair in _pairs(statement):
            origins = [*filter(None, needed.get(pair, "").split(", ")), statement.origin]
            needed[pair] = ", ".join(dict.fromkeys(origins))
    told = {pair: _told(origin, bought) for pair, origin in needed.items()}
    return imports(pipelines.script, lines, told, first)


def _pairs(statement: Statement) -> tuple[Pair, ...]:
    return (*statement.imports, *([("pathlib", "Path")] if "{engines}" in statement.code else []))


def _line(statement: Statement, pipe: str, engines: str, known: Imports, bought: Mapping[str, str]) -> NewLine:
    """Write a statement with the names under which the script has its imports."""
    code = _renamed(statement.code, {name: known.written[module, name] for module, name in statement.imports})
    folder = f"{known.written['pathlib', 'Path']}({literal(engines)})" if "{engines}" in code else ""
    return NewLine(code.replace("{pipe}", pipe).replace("{engines}", folder), _told(statement.origin, bought))


def _renamed(code: str, names: Mapping[str, str]) -> str:
    """Replace names in a line of code; attributes, keywords and text stay."""
    edits = []
    before = ""
    for token, follower in pairwise(tokenize.generate_tokens(io.StringIO(code).readline)):
        if token.type == tokenize.NAME and token.string in names and before != "." and follower.string != "=":
            edits.append(Edit(token.start[1], token.end[1], names[token.string]))
        before = token.string
    return apply_edits(code, edits)
