"""Write a module as a standalone `pipeline.py` whose `load()` returns a real `diffusers` pipeline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from diffopt.ir.dialect import TextType, components
from diffopt.ir.emit_construction import construction
from diffopt.ir.emit_statements import RUNTIME, Statement, call_arguments, literal, placed_by_hand, statements
from diffopt.ir.errors import DiffoptError
from diffopt.ir.rewrite import Rewriter, rewrites
from diffopt.ir.verify import Stage, verify

TEMPLATE = '''"""{title}

{note}
"""

{imports}

MODEL = {model}
ENGINES = Path(__file__).parent / "engines"


def load(model: str = MODEL, device: str = "cpu", engines: Path = ENGINES) -> {pipeline_class}:
    """Return the pipeline; `pipe({takes})` makes {makes} with the call defaults below."""
{before}    pipe = {made}
{after}{moved}{body}
    call_defaults(pipe, {defaults})
    return pipe
'''

MAKES = {"diffusion.image": "an image", "diffusion.video": "a video", "diffusion.audio": "a sound"}
PLURALS = {"diffusion.image": "images", "diffusion.video": "videos", "diffusion.audio": "sounds"}
BASELINE_NOTE = "The pipeline as it was lifted: eager PyTorch, nothing changed."
NOTE = "Made by diffopt with the passes named in the comments; `diffopt verify` measures it again."


@dataclass(frozen=True)
class Emission:
    """What a module comes to: code, and the packages it needs."""

    pipeline_py: str
    requirements: tuple[str, ...]


def emit(module: ModuleOp, rewriter: Rewriter | None = None) -> Emission:
    """Emit a module.

    Args:
        rewriter: runs the codes that the module's rewrites name; needed where it has some.

    Raises:
        DiffoptError: the module breaks a rule of stage EMITTABLE, or a rewrite cannot be done.
    """
    broken = verify(module, Stage.EMITTABLE)
    if broken:
        raise DiffoptError(f"{broken[0].message} [{broken[0].rule}]", where=broken[0].where)
    found = statements(module)
    pipeline = components(module)["pipeline"]
    library, class_name = pipeline.class_name.data.rsplit(".", 1)
    imports = {("pathlib", "Path"), (library, class_name), (RUNTIME, "call_defaults")}
    imports |= {pair for statement in found for pair in statement.imports}
    built = construction(module)
    imports |= built.imports
    made = f"{class_name}.from_pretrained(model, {''.join(f'{g}, ' for g in built.given)}dtype=torch.{pipeline.values['dtype']})"
    if "seeded_weights" in pipeline.values:
        # Configurations alone: the weights are drawn, so that an architecture runs that cannot be downloaded.
        seed = literal(pipeline.values["seeded_weights"])
        dtype = pipeline.values["dtype"]
        made = f"seeded_pipeline({class_name}, model, device=device, dtype=torch.{dtype}, seed={seed})"
        imports.add((RUNTIME, "seeded_pipeline"))
    note = NOTE if found else BASELINE_NOTE
    if built.left:
        note += f"\n\nNot carried over from the source: {', '.join(dict.fromkeys(built.left))}."
    code = TEMPLATE.format(
        title=_title(class_name, module),
        note=note,
        takes=", ".join(_takes(module)),
        makes=MAKES.get(_result(module), "data"),
        before=_indented(built.before),
        made=made,
        after=_indented(built.after),
        moved="" if placed_by_hand(module) else "    pipe.to(device)\n",
        imports=_import_lines(imports),
        model=literal(pipeline.values["model"]),
        pipeline_class=class_name,
        body="".join(f"{_line(statement)}\n" for statement in found).rstrip("\n"),
        defaults=", ".join(f"{key}={literal(value)}" for key, value in call_arguments(module).items()),
    )
    code = code.replace("to(device)\n\n    call", "to(device)\n    call")
    for name in rewrites(module):
        if rewriter is None:
            raise DiffoptError(f"the generated code {name[:15]} is not here", hint="it is in the run that made it")
        code = rewriter(name, code)
    return Emission(code, _requirements(module))


def emit_pipeline(module: ModuleOp, rewriter: Rewriter | None = None) -> str:
    """Return the text of the standalone `pipeline.py`; see `emit`."""
    return emit(module, rewriter).pipeline_py


def _title(class_name: str, module: ModuleOp) -> str:
    values = components(module)["pipeline"].values
    if values.get("height") is None or values.get("width") is None:
        return f"{class_name}."
    return f"{class_name} for {values['height']}x{values['width']} {PLURALS.get(_result(module), 'data')}."


def _takes(module: ModuleOp) -> Iterator[str]:
    """Yield what a call is given: the prompt, and what else has no default."""
    arguments = _generate(module).function_type.inputs.data
    if any(isinstance(kind, TextType) for kind in arguments):
        yield "prompt"
    listed = components(module)["pipeline"].values.get("inputs")
    for item in listed if isinstance(listed, list) else ():
        if isinstance(item, dict):
            yield f"{item.get('name')}=..."


def _result(module: ModuleOp) -> str:
    """Return the type of what a call makes."""
    return str(_generate(module).function_type.outputs.data[0].name)


def _generate(module: ModuleOp) -> FuncOp:
    return next(op for op in module.body.block.ops if isinstance(op, FuncOp))


def _indented(lines: Iterable[str]) -> str:
    return "".join(f"    {line}\n" for line in lines)


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
