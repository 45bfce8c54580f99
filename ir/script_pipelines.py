"""Pipelines of a script: where they are built, which expressions hold one, where they are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import libcst as cst

from diffopt.ir.script_kinds import Instance, Known, LocalClass
from diffopt.ir.script_names import attribute_bindings, bindings, method_class
from diffopt.ir.script_parameters import callers, meant, returns
from diffopt.ir.script_text import Script
from diffopt.ir.script_threads import bound_in_thread, handed
from diffopt.ir.script_values import Values

LOADERS = ("from_pretrained", "from_single_file", "from_pipe")
WRAPPERS = ("functools.partial", "copy.copy", "copy.deepcopy", "torch.compile")
FLUENT = ("to", "half", "float", "cpu", "cuda", "eval", "copy", "prepare", "deepcopy")
"""Calls whose result is the pipeline they are called on or given."""


@dataclass(frozen=True, eq=False)
class Site:
    """A place where a pipeline is built.

    Args:
        call: `X.from_pretrained(...)` or `X(...)`.
        pipeline_class: dotted name of `X`.
        loader: the class method; empty for the constructor itself.
        chained: the expression with what is chained to the call, `X.from_pretrained(...).to("cuda")`.
        target: what it is assigned to, in the script's own words; `None` where it is not a plain assignment.
        names: what a user may call it.
    """

    call: cst.Call
    pipeline_class: str
    loader: str
    chained: cst.BaseExpression
    target: str | None
    names: tuple[str, ...]


class Pipelines:
    """Finds the pipelines of one script; remembers which expression holds which."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.values = Values(script)
        self._found: dict[cst.CSTNode, frozenset[Site]] = {}
        self._open: set[cst.CSTNode] = set()

    @cached_property
    def sites(self) -> Mapping[cst.Call, Site]:
        """Where pipelines are built, in the order of the source."""
        return {call: site for call in self.script.all(cst.Call) if (site := self._site(call)) is not None}

    @cached_property
    def calls(self) -> Mapping[cst.Call, frozenset[Site]]:
        """Where pipelines are called, and which it may be."""
        if not self.sites:
            return {}
        found: dict[cst.Call, frozenset[Site]] = {}
        for call in self.script.all(cst.Call):
            position = handed(call)
            made = bound_in_thread(call) or call
            if position is None:
                sites = self.of(call.func) if call not in self.sites else frozenset()
            else:
                sites = self.of(made.args[0].value if made is not call else call.args[position].value)
            if sites:
                found[made] = sites
        return found

    def of(self, node: cst.CSTNode) -> frozenset[Site]:
        """Return the pipelines an expression may hold."""
        if node in self._found:
            return self._found[node]
        if node in self._open or len(self._open) > 30:
            return frozenset()
        self.script.spend()
        self._open.add(node)
        found = frozenset(site for sites in self._sources(node) for site in sites)
        self._open.discard(node)
        if not self._open or found:
            self._found[node] = found
        return found

    def _sources(self, node: cst.CSTNode) -> Iterator[frozenset[Site]]:
        match node:
            case cst.Call() if node in self.sites:
                yield frozenset([self.sites[node]])
            case cst.Call():
                yield from self._call_sources(node)
            case cst.Name():
                for binding in bindings(self.script, node):
                    yield from self._bound(binding.node, binding.steps, binding.each)
            case cst.Attribute():
                yield from self._attribute_sources(node)
            case cst.Subscript():
                yield from self._subscript_sources(node)
            case cst.IfExp():
                yield self.of(node.body)
                yield self.of(node.orelse)
            case cst.BooleanOperation():
                yield self.of(node.left)
                yield self.of(node.right)
            case cst.Await():
                yield self.of(node.expression)
            case cst.NamedExpr():
                yield self.of(node.value)

    def _call_sources(self, node: cst.Call) -> Iterator[frozenset[Site]]:
        if node.args and self.values.symbol(node.func) in WRAPPERS:
            yield self.of(node.args[0].value)
            return
        if isinstance(node.func, cst.Attribute) and node.func.attr.value in FLUENT:
            yield self.of(node.func.value)
            yield from (self.of(arg.value) for arg in node.args[:1])
            return
        local = meant(self.values, node.func)
        if isinstance(node.func, cst.Attribute) and not local:
            for function in self.methods.get(node.func.attr.value, ()):
                yield from (self.of(r.value) for r in returns(self.values, function) if r.value is not None)
            return
        if local:
            for binding in local:
                if isinstance(binding.node, cst.FunctionDef):
                    values = (r.value for r in returns(self.values, binding.node) if r.value is not None)
                    yield from (self.of(value) for value in values)
                elif isinstance(binding.node, cst.Lambda):
                    yield self.of(binding.node.body)

    def _bound(self, node: cst.CSTNode, steps: tuple[int, ...], each: bool) -> Iterator[frozenset[Site]]:
        if isinstance(node, cst.Param):
            yield from self._passed(node)
        elif isinstance(node, cst.Tuple | cst.List) and each:
            yield from (self.of(element.value) for element in node.elements)
        elif isinstance(node, cst.Tuple | cst.List) and steps:
            if steps[0] < len(node.elements):
                yield from self._bound(node.elements[steps[0]].value, steps[1:], False)
        elif isinstance(node, cst.Call) and steps:
            for binding in meant(self.values, node.func):
                if isinstance(binding.node, cst.FunctionDef):
                    for statement in returns(self.values, binding.node):
                        if isinstance(statement.value, cst.Tuple):
                            yield from self._bound(statement.value, steps, False)
        elif isinstance(node, cst.BaseExpression) and not steps:
            yield self.of(node)

    def _passed(self, node: cst.Param) -> Iterator[frozenset[Site]]:
        """Yield what callers in the script give for a parameter."""
        function = self.script.enclosing(node, cst.FunctionDef)
        if function is None:
            return
        parameters = [*function.params.posonly_params, *function.params.params]
        offset = 1 if method_class(self.script, function) is not None else 0
        position = parameters.index(node) - offset if node in parameters else -1
        for call in callers(self.values, function):
            positional = [arg.value for arg in call.args if arg.keyword is None and not arg.star]
            if 0 <= position < len(positional):
                yield self.of(positional[position])
            for arg in call.args:
                if arg.keyword is not None and arg.keyword.value == node.name.value:
                    yield self.of(arg.value)

    def _attribute_sources(self, node: cst.Attribute) -> Iterator[frozenset[Site]]:
        name = node.attr.value
        for binding in attribute_bindings(self.script, node):
            yield from self._bound(binding.node, binding.steps, binding.each)
        root = self.script.code(node.value)
        for place, value in self.values.attribute_targets.get(name, ()):
            if self.script.code(place.value) == root or self._is_self(place.value):
                yield self.of(value)
        for function in self.methods.get(name, ()):
            marks = [self.script.code(d.decorator).split(".")[-1] for d in function.decorators]
            if "property" in marks or "cached_property" in marks:
                yield from (self.of(r.value) for r in returns(self.values, function) if r.value is not None)
        for owner, value in self._class_fields.get(name, ()):
            kind = self.values.of(node.value)
            if isinstance(kind, Known) and isinstance(kind.value, Instance | LocalClass) and kind.value.node is owner:
                yield self.of(value)

    def _subscript_sources(self, node: cst.Subscript) -> Iterator[frozenset[Site]]:
        text = self.script.code(node.value)
        for target in self.script.all(cst.AssignTarget):
            statement, place = self.script.parents[target], target.target
            if not isinstance(place, cst.Subscript) or not isinstance(statement, cst.Assign):
                continue
            if self.script.code(place.value) == text:
                yield self.of(statement.value)
        holder = self.values.of(node.value) if isinstance(node.value, cst.Name) else None
        for binding in bindings(self.script, node.value) if isinstance(node.value, cst.Name) and holder else ():
            if isinstance(binding.node, cst.Dict):
                wanted = [self.values.of(e.slice.value) for e in node.slice if isinstance(e.slice, cst.Index)]
                for element in binding.node.elements:
                    key = self.values.of(element.key) if isinstance(element, cst.DictElement) else None
                    if not all(
                        isinstance(w, Known) and isinstance(key, Known) and w.value != key.value for w in wanted
                    ):
                        yield self.of(element.value)

    @cached_property
    def methods(self) -> dict[str, list[cst.FunctionDef]]:
        """Methods of the script's classes, by name."""
        found: dict[str, list[cst.FunctionDef]] = {}
        for function in self.script.all(cst.FunctionDef):
            if method_class(self.script, function) is not None:
                found.setdefault(function.name.value, []).append(function)
        return found

    @cached_property
    def _class_fields(self) -> dict[str, list[tuple[cst.ClassDef, cst.BaseExpression]]]:
        from diffopt.ir.script_parameters import fields

        found: dict[str, list[tuple[cst.ClassDef, cst.BaseExpression]]] = {}
        for owner in self.script.all(cst.ClassDef):
            for name, value in fields(owner):
                if value is not None:
                    found.setdefault(name, []).append((owner, value))
        return found

    def _is_self(self, node: cst.BaseExpression) -> bool:
        return isinstance(node, cst.Name) and node.value in ("self", "cls")

    def _site(self, call: cst.Call) -> Site | None:
        loader = ""
        made: cst.BaseExpression = call.func
        inner = self.values.partial_of(call)
        if inner is not None:
            made = inner.args[0].value
        if isinstance(made, cst.Name):
            found = [b.node for b in bindings(self.script, made) if isinstance(b.node, cst.Attribute)]
            made = found[0] if len(found) == 1 and found[0].attr.value in LOADERS else made
        if isinstance(made, cst.Attribute) and made.attr.value in LOADERS:
            loader, made = made.attr.value, made.value
        pipeline_class = self._pipeline_class(made)
        if not pipeline_class:
            return None
        chained, target = self._held(call)
        names = [target, target.split(".")[-1]] if target else []
        names += [f.name.value for f in self.script.ancestors(call) if isinstance(f, cst.FunctionDef | cst.ClassDef)]
        names += [self.script.label(call)]
        return Site(call, pipeline_class, loader, chained, target, tuple(dict.fromkeys(names)))

    def _pipeline_class(self, node: cst.BaseExpression, depth: int = 0) -> str:
        if not isinstance(node, cst.Name | cst.Attribute | cst.Call | cst.Subscript) or depth > 8:
            return ""
        symbol = self.values.symbol(node)
        library, _, last = symbol.rpartition(".")
        if library.split(".")[0] == "diffusers" and "Pipeline" in last and "Output" not in last:
            return f"diffusers.{last}"
        value = self.values.of(node) if isinstance(node, cst.Name) else None
        if isinstance(value, Known) and isinstance(value.value, LocalClass):
            bases = (self._pipeline_class(base.value, depth + 1) for base in value.value.node.bases)
            return next(filter(None, bases), "")
        return ""

    def _held(self, call: cst.Call) -> tuple[cst.BaseExpression, str | None]:
        """Return the construction with what is chained to it, and what that is assigned to."""
        chained: cst.BaseExpression = call
        while True:
            parent = self.script.parents[chained]
            outer = self.script.parents.get(parent)
            if isinstance(parent, cst.Attribute) and isinstance(outer, cst.Call) and outer.func is parent:
                if parent.attr.value not in FLUENT:
                    break
                chained = outer
                continue
            if isinstance(parent, cst.Await):
                chained = parent
                continue
            break
        while isinstance(parent, cst.IfExp | cst.BooleanOperation):
            parent = self.script.parents[parent]
        if isinstance(parent, cst.Assign):
            targets = [target.target for target in parent.targets]
            plain = [t for t in targets if isinstance(t, cst.Name | cst.Attribute | cst.Subscript)]
            names = sorted(plain, key=lambda t: not isinstance(t, cst.Name))
            return chained, self.script.code(names[0]) if names else None
        if isinstance(parent, cst.AnnAssign):
            return chained, self.script.code(parent.target)
        return chained, None
