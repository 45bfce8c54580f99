"""Facts of a script that rules ask for: which pipeline a name holds, what is done with it, and in which order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import libcst as cst
from libcst.metadata import BaseMetadataProvider

from diffopt.ir.pipeline_classes import PipelineClass, pipeline_class
from diffopt.ir.script_kinds import Known
from diffopt.ir.script_names import bindings
from diffopt.ir.script_pipelines import Pipelines, Site
from diffopt.ir.script_places import walk
from diffopt.ir.script_scopes import Scopes
from diffopt.ir.script_text import Part, Script, join

LOOPS = (cst.For, cst.While)
FUNCTIONS = (cst.FunctionDef, cst.Lambda)
BLOCKS = (cst.Module, cst.IndentedBlock, cst.SimpleStatementSuite)
UNKNOWN = object()
"""Stands for a value that is not written in the script."""


@dataclass(frozen=True, eq=False)
class Use:
    """A call of something that belongs to a pipeline: `pipe.vae.enable_tiling()` has the path `vae`, `enable_tiling`.

    Args:
        path: attributes between the pipeline and the call.
        holder: the expression that holds the pipeline.
    """

    site: Site
    path: tuple[str, ...]
    call: cst.Call
    holder: cst.BaseExpression


@dataclass(frozen=True, eq=False)
class Change:
    """An assignment to something that belongs to a pipeline: `pipe.scheduler = value`."""

    site: Site
    path: tuple[str, ...]
    value: cst.BaseExpression
    statement: cst.Assign


class Facts:
    """Answers what rules ask of one module; each answer is worked out once."""

    def __init__(self, module: cst.Module) -> None:
        self.script = _script(module)
        self.pipelines = Pipelines(self.script)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Where pipelines are built, in the order of the source."""
        return tuple(self.pipelines.sites.values())

    @cached_property
    def calls(self) -> tuple[tuple[cst.Call, Site], ...]:
        """Where a pipeline is called, and which: only calls of one certain pipeline."""
        return tuple((call, next(iter(sites))) for call, sites in self.pipelines.calls.items() if len(sites) == 1)

    @cached_property
    def uses(self) -> tuple[Use, ...]:
        """Calls of what belongs to one certain pipeline, in the order of the source."""
        return tuple(use for call in self.script.all(cst.Call) if (use := self._use(call)) is not None)

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """Assignments to what belongs to one certain pipeline."""
        found = []
        for statement in self.script.all(cst.Assign):
            for target in statement.targets:
                held = self._held(target.target)
                if held is not None:
                    found.append(Change(held[0], held[1], statement.value, statement))
        return tuple(found)

    @cached_property
    def comments(self) -> dict[int, tuple[bool, str]]:
        """Comments by the line they stand in, and whether each has the line for itself."""
        found = {}
        for comment in self.script.all(cst.Comment):
            empty = isinstance(self.script.parents.get(comment), cst.EmptyLine)
            found[self.script.line(comment)] = (empty, comment.value)
        return found

    def site(self, node: cst.BaseExpression) -> Site | None:
        """Return the one pipeline an expression holds; `None` if there is none or it may be several."""
        found = self.pipelines.of(node)
        return next(iter(found)) if len(found) == 1 else None

    def uses_of(self, site: Site, *path: str) -> list[Use]:
        """Return calls on a pipeline by the end of their path."""
        return [use for use in self.uses if use.site is site and use.path[-len(path) :] == path]

    def calls_of(self, site: Site) -> list[cst.Call]:
        """Return the calls of a pipeline itself."""
        return [call for call, called in self.calls if called is site]

    def symbol(self, node: cst.CSTNode) -> str:
        """Return the dotted name of what an expression was imported as; empty for anything else."""
        return self.pipelines.values.symbol(node)

    def called(self, call: cst.Call) -> str:
        """Return the dotted name of what is called; a method of something made here has none."""
        return self.symbol(call.func) if isinstance(call.func, cst.Name | cst.Attribute) else ""

    def value(self, node: cst.BaseExpression | None) -> Any:
        """Return what an expression is worth, where a person who reads the script can see it; else `UNKNOWN`.

        A default that the command line may replace is not seen.
        """
        if node is None or not _plain(node, self):
            return UNKNOWN
        found = self.pipelines.values.of(node)
        return found.value if isinstance(found, Known) else UNKNOWN

    def argument(self, call: cst.Call, name: str, position: int | None = None) -> cst.BaseExpression | None:
        """Return an argument by name, or by position."""
        for index, arg in enumerate(call.args):
            if arg.keyword is not None and arg.keyword.value == name:
                return arg.value
            if arg.keyword is None and not arg.star and index == position:
                return arg.value
        return None

    def keyword(self, call: cst.Call, name: str) -> cst.Arg | None:
        """Return a named argument."""
        return next((a for a in call.args if a.keyword is not None and a.keyword.value == name), None)

    def open(self, call: cst.Call) -> bool:
        """Say whether a call takes arguments that are not written in it: `*a` or `**b`."""
        return any(arg.star for arg in call.args)

    def kind(self, site: Site) -> PipelineClass | None:
        """Return what diffusers says of a pipeline's class; `None` for those that choose another, and the script's own."""
        name = site.pipeline_class.rpartition(".")[2]
        made = self.called(site.call)
        if not made.startswith("diffusers.") or self.keyword(site.call, "custom_pipeline") is not None:
            return None
        return None if name == "DiffusionPipeline" or name.startswith("AutoPipeline") else pipeline_class(name)

    def model(self, site: Site) -> str:
        """Return the model a pipeline is loaded from; empty where it is not written in the script."""
        if not site.loader:
            return ""
        value = self.value(self.argument(site.call, "pretrained_model_name_or_path", 0))
        return value if isinstance(value, str) else ""

    def dtype(self, site: Site) -> str:
        """Return the type a pipeline is loaded in: `float16`, `bfloat16`, ...; empty where it is not known."""
        node = self.argument(site.call, "dtype") or self.argument(site.call, "torch_dtype")
        return self.symbol(node).removeprefix("torch.") if node is not None else ""

    def device(self, node: cst.BaseExpression | None) -> str:
        """Return the kind of device an expression names: `cuda`, `cpu`, `mps`, ...; empty where it is not known."""
        if isinstance(node, cst.Call) and self.called(node) == "torch.device":
            node = self.argument(node, "type", 0) or self.argument(node, "device", 0)
        value = self.value(node)
        return value.partition(":")[0] if isinstance(value, str) else ""

    def before(self, first: cst.CSTNode, second: cst.CSTNode) -> bool:
        """Say whether one node has certainly been run when the other one is."""
        places = {block: index for block, index in self._places(second)}
        for block, index in self._places(first):
            if block in places:
                return index < places[block]
            if not isinstance(self.script.parents.get(block), cst.With):
                return self._in_constructor(first, second)
        return False

    def loop(self, node: cst.CSTNode) -> cst.For | cst.While | None:
        """Return the innermost loop whose body runs a node again and again, in the same function."""
        inner = node
        for ancestor in self.script.ancestors(node):
            if isinstance(ancestor, FUNCTIONS):
                return None
            if isinstance(ancestor, LOOPS) and inner is ancestor.body:
                return ancestor
            inner = ancestor
        return None

    def varies(self, node: cst.CSTNode, loop: cst.For | cst.While) -> bool:
        """Say whether an expression may differ from one round of a loop to the next."""
        changed = {n.value for n in _names(loop.target)} if isinstance(loop, cst.For) else set[str]()
        for inner in inside(loop.body):
            match inner:
                case cst.AssignTarget() | cst.AnnAssign() | cst.AugAssign() | cst.NamedExpr() | cst.For():
                    changed |= {n.value for n in _names(inner.target)}
                case cst.AsName():
                    changed |= {n.value for n in _names(inner.name)}
        within = list(inside(node))
        return any(isinstance(n, cst.Call | cst.Await | cst.Yield) for n in within) or any(
            isinstance(n, cst.Name) and n.value in changed for n in within
        )

    def statement(self, node: cst.CSTNode) -> cst.SimpleStatementLine | None:
        """Return the line an expression stands in, if it is the only statement of it."""
        line = self.script.enclosing(node, cst.SimpleStatementLine)
        return line if line is not None and len(line.body) == 1 else None

    def is_statement(self, node: cst.CSTNode) -> bool:
        """Say whether an expression is a statement of its own, its value unused."""
        return isinstance(self.script.parents.get(node), cst.Expr)

    def imports(self, name: str) -> bool:
        """Say whether `name` is an imported module that a fix may write: `torch`."""
        found = self.script.parts[-1].scopes.module.find(name)
        return len(found) == 1 and found[0].imported == name

    def bound(self, name: cst.Name) -> cst.CSTNode | None:
        """Return what the one assignment that a name can come from gives it; `None` where there are several."""
        found = bindings(self.script, name)
        return found[0].node if len(found) == 1 and not found[0].steps and not found[0].each else None

    def configuration(self, call: cst.Call) -> str:
        """Return the class of the configuration a call is given first; empty where it is not known."""
        node: cst.CSTNode | None = self.argument(call, "config", 0)
        node = self.bound(node) if isinstance(node, cst.Name) else node
        return self.called(node).rpartition(".")[2] if isinstance(node, cst.Call) else ""

    def repeats(self, node: cst.CSTNode, loop: cst.For | cst.While) -> bool:
        """Say whether a loop runs a node again and again: under no condition, and not followed by a way out."""
        if not self.unconditional(node, loop) or (isinstance(loop, cst.While) and self.value(loop.test) is UNKNOWN):
            return False
        return not any(isinstance(n, cst.Break | cst.Return | cst.Raise | cst.Continue) for n in inside(loop.body))

    def changed(self, site: Site) -> bool:
        """Say whether other weights than those it is loaded with may be in a pipeline: a LoRA, another model."""
        parts = ("unet", "transformer", "prior", "controlnet", "adapter")
        given = any(self.keyword(site.call, part) for part in parts)
        put = any(c.site is site and c.path[0] in parts and not _compiles(c.value) for c in self.changes)
        return given or put or bool(self.uses_of(site, "load_lora_weights"))

    def replaced(self, site: Site) -> bool:
        """Say whether the class of a pipeline is given another `__call__` by the script."""
        return any(self.script.code(n) == "__call__" for n in self.script.all(cst.Name) if n.value == "__call__")

    def changed_in(self, site: Site, loop: cst.For | cst.While) -> bool:
        """Say whether a loop changes a pipeline: loads a LoRA into it, sets a part of it."""
        body = set(inside(loop.body))
        changes = any(change.site is site and change.statement in body for change in self.changes)
        loads = ("load_lora_weights", "set_adapters", "load_textual_inversion", "unload_lora_weights", "fuse_lora")
        return changes or any(u.site is site and u.call in body and u.path[-1] in loads for u in self.uses)

    def unconditional(self, node: cst.CSTNode, loop: cst.For | cst.While) -> bool:
        """Say whether every round of a loop that is not left before runs a node."""
        for block, _ in self._places(node):
            if not isinstance(self.script.parents.get(block), cst.With):
                return block is loop.body
        return False

    def mentions(self, word: str) -> bool:
        """Say whether a word stands anywhere in the script, comments included."""
        return re.search(rf"\b{re.escape(word)}\b", self.script.text) is not None

    def stays(self, site: Site) -> bool:
        """Say whether a pipeline is only used where it can be seen: it is not handed to code that may do anything."""
        for node in self.mentions_of(site):
            parent = self.script.parents.get(node)
            match parent:
                case cst.Attribute() | cst.Expr() | cst.AssignTarget() | cst.Assign() | cst.AnnAssign():
                    continue
                case cst.Call() if parent.func is node:
                    continue
                case cst.Del() | cst.Await() | cst.IfExp():
                    continue
            return False
        return True

    def mentions_of(self, site: Site) -> Sequence[cst.CSTNode]:
        """Return the names and other expressions that may hold a pipeline."""
        return self._mentions_of.get(site, ())

    @cached_property
    def _mentions_of(self) -> dict[Site, list[cst.CSTNode]]:
        found: dict[Site, list[cst.CSTNode]] = {}
        for kind in (cst.Name, cst.Attribute, cst.Call):
            for node in self.script.all(kind):
                for site in self.pipelines.of(node):
                    found.setdefault(site, []).append(node)
        return found

    def _use(self, call: cst.Call) -> Use | None:
        held = self._held(call.func)
        return Use(held[0], held[1], call, held[2]) if held is not None else None

    def _held(self, node: cst.CSTNode) -> tuple[Site, tuple[str, ...], cst.BaseExpression] | None:
        path: list[str] = []
        while isinstance(node, cst.Attribute):
            path.insert(0, node.attr.value)
            node = node.value
            site = self.site(node) if isinstance(node, cst.BaseExpression) else None
            if site is not None:
                return site, tuple(path), node
        return None

    def _places(self, node: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, int]]:
        """Yield the blocks around a node and which of their statements it is in."""
        inner = node
        for ancestor in self.script.ancestors(node):
            if isinstance(ancestor, BLOCKS):
                yield ancestor, next(i for i, part in enumerate(ancestor.body) if part is inner)
            inner = ancestor

    def _in_constructor(self, first: cst.CSTNode, second: cst.CSTNode) -> bool:
        """Say whether the first node is run by the constructor of the object whose method runs the second."""
        one, two = (self._method(node) for node in (first, second))
        if one is None or two is None or one[0] is not two[0] or one[1] is two[1]:
            return False
        places = list(self._places(first))
        return one[1].name.value == "__init__" and places[0][0] is one[1].body

    def _method(self, node: cst.CSTNode) -> tuple[cst.ClassDef, cst.FunctionDef] | None:
        function = self.script.enclosing(node, cst.FunctionDef)
        owner = self.script.enclosing(function, cst.ClassDef) if function is not None else None
        return (owner, function) if owner is not None and function is not None else None


class FactsProvider(BaseMetadataProvider[Facts]):
    """Hands the same facts to all rules that look at a module."""

    def _gen_impl(self, module: cst.Module) -> None:
        self.set_metadata(module, Facts(module))


def _script(module: cst.Module) -> Script:
    places = walk(module)
    index: dict[type, list[cst.CSTNode]] = {}
    for node in places.nodes:
        index.setdefault(type(node), []).append(node)
    starts = (match.end() for match in re.finditer(r"\r\n?|\n", places.code))
    part = Part("", 0, places.code, module, Scopes(module, places.parents, index), (0, *starts))
    return join([(part, places)])


def _compiles(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value == "compile"


def _plain(node: cst.CSTNode, facts: Facts) -> bool:
    """Say whether an expression is written with literals, and names that stand for such."""
    for inner in inside(node):
        if isinstance(inner, cst.Call | cst.Subscript | cst.FormattedString | cst.Lambda | cst.Attribute):
            return False
        if isinstance(inner, cst.Name) and inner.value not in ("True", "False", "None"):
            bound = facts.bound(inner)
            if not isinstance(bound, cst.BaseExpression) or not _literal(bound):
                return False
    return True


def _literal(node: cst.CSTNode) -> bool:
    constants = ("True", "False", "None")
    names = any(isinstance(n, cst.Name) and n.value not in constants for n in inside(node))
    return not names and not any(isinstance(n, cst.Call | cst.Subscript | cst.Lambda) for n in inside(node))


def inside(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """Yield a node and all that it is made of."""
    yield node
    for child in node.children:
        yield from inside(child)


def _names(node: cst.CSTNode) -> Sequence[cst.Name]:
    return [n for n in inside(node) if isinstance(n, cst.Name)]
