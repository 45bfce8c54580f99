"""Write a module as a standalone `pipeline.py` whose `load()` returns a real `diffusers` pipeline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components
from diffopt.ir.emit_statements import RUNTIME, Statement, call_arguments, literal, statements
from diffopt.ir.errors import DiffoptError
from diffopt.ir.verify import Stage, verify

TEMPLATE = '''"""{title}

{note}
"""

{imports}

MODEL = {model}
ENGINES = Path(__file__).parent / "engines"


def load(model: str = MODEL, device: str = "cpu", engines: Path = ENGINES) -> {pipeline_class}:
    """Return the pipeline; `pipe(prompt)` makes an image with the call defaults below."""
    pipe = {pipeline_class}.from_pretrained(model, dtype=torch.{dtype})
    pipe.to(device)
{body}
    call_defaults(pipe, {defaults})
    return pipe
'''

BASELINE_NOTE = "The pipeline as it was lifted: eager PyTorch, nothing changed."
NOTE = "Made by diffopt with the passes named in the comments; `diffopt verify` measures it again."


@dataclass(frozen=True)
class Emission:
    """What a module comes to: code, and the packages it needs."""

    pipeline_py: str
    requirements: tuple[str, ...]


def emit(module: ModuleOp) -> Emission:
    """Emit a module.

    Raises:
        DiffoptError: the module breaks a rule of stage EMITTABLE.
    """
    broken = verify(module, Stage.EMITTABLE)
    if broken:
        raise DiffoptError(f"{broken[0].message} [{broken[0].rule}]", where=broken[0].where)
    found = statements(module)
    pipeline = components(module)["pipeline"]
    library, class_name = pipeline.class_name.data.rsplit(".", 1)
    imports = {("pathlib", "Path"), (library, class_name), (RUNTIME, "call_defaults")}
    imports |= {pair for statement in found for pair in statement.imports}
    code = TEMPLATE.format(
        title=f"{class_name} for {pipeline.values['height']}x{pipeline.values['width']} images.",
        note=NOTE if found else BASELINE_NOTE,
        imports=_import_lines(imports),
        model=literal(pipeline.values["model"]),
        pipeline_class=class_name,
        dtype=pipeline.values["dtype"],
        body="".join(f"{_line(statement)}\n" for statement in found).rstrip("\n"),
        defaults=", ".join(f"{key}={literal(value)}" for key, value in call_arguments(module).items()),
    )
    return Emission(code.replace("to(device)\n\n    call", "to(device)\n    call"), _requirements(module))


def emit_pipeline(module: ModuleOp) -> str:
    """Return the text of the standalone `pipeline.py`."""
    return emit(module).pipeline_py


def _line(statement: Statement) -> str:
    code = statement.line(pipe="pipe", engines="engines")
    comment = f"    # {statement.origin}\n" if statement.origin else ""
    return f"{comment}    {code}"


def _import_lines(pairs: Iterable[tuple[str, str]]) -> str:
    names: dict[str, set[str]] = defaultdict(set)
    for library, name in pairs:
        names[library].add(name)

    def lines(libraries: Iterable[str]) -> str:
        return "\n".join(f"from {library} import {', '.join(sorted(names[library]))}" for library in sorted(libraries))

    ours = {library for library in names if library.split(".")[0] == "diffopt"}
    theirs = lines(set(names) - ours - {"pathlib"})
    return f"{lines({'pathlib'})}\n\nimport torch\n{theirs}\n\n{lines(ours)}"


def _requirements(module: ModuleOp) -> tuple[str, ...]:
    backends = {
        str(transform.arguments["backend"])
        for component in components(module).values()
        for transform in component.transforms
        if "backend" in transform.arguments
    }
    return ("torch", "diffusers", "transformers", *sorted(backends))
