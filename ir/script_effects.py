"""What statements do with a pipeline, in themselves and through the functions of the script that they call."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from diffopt.ir.script_choice import Choice
from diffopt.ir.script_names import bindings
from diffopt.ir.script_parameters import meant, methods
from diffopt.ir.script_pipelines import FLUENT, Pipelines

DEFERRED = (cst.FunctionDef, cst.ClassDef, cst.Lambda)


class Effects:
    """Tells what statements do with one pipeline; remembers it of functions."""

    def __init__(self, pipelines: Pipelines, choice: Choice) -> None:
        self.pipelines, self.script = pipelines, pipelines.script
        self.sites, self.calls = frozenset(choice.sites), frozenset(choice.calls)
        self._known: dict[cst.CSTNode, frozenset[str]] = {}

    def role(self, unit: cst.CSTNode) -> str:
        """Say what a statement does with the pipeline: `use` it, `set-up`, or nothing that matters."""
        if isinstance(unit, cst.FunctionDef | cst.ClassDef):
            return ""
        roles: set[str] = set()
        for node in self.inside(unit):
            if node in self.calls:
                roles.add("use")
            elif isinstance(node, cst.Call):
                roles |= self.through(node)
            elif self.holds(node):
                roles.add("use" if self.script.enclosing(node, cst.Return) else self._mention(node))
        return next((role for role in ("use", "set-up") if role in roles), "")

    def through(self, call: cst.Call) -> frozenset[str]:
        """Return what the functions of the script that a call runs do with the pipeline."""
        return frozenset(role for function in self._functions(call) for role in self._body(function))

    def inside(self, unit: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """Yield the nodes of a statement that run with it."""
        stack: list[cst.CSTNode] = [unit]
        while stack:
            node = stack.pop()
            yield node
            if not isinstance(node, DEFERRED):
                stack.extend(node.children)

    def holds(self, node: cst.CSTNode) -> bool:
        """Say whether an expression may be the pipeline."""
        if not isinstance(node, cst.Name | cst.Attribute | cst.Subscript):
            return False
        return bool(self.pipelines.of(node) & self.sites)

    def _body(self, function: cst.FunctionDef) -> frozenset[str]:
        if function not in self._known:
            self._known[function] = frozenset()  # for a function that calls itself
            roles: set[str] = set()
            for node in self.inside(function.body):
                if node in self.calls:
                    roles.add("use")
                elif isinstance(node, cst.Call):
                    roles |= self.through(node)
                elif self.holds(node) and not isinstance(self.script.parents[node], cst.Return | cst.Arg):
                    roles.add(self._mention(node))
            self._known[function] = frozenset(roles - {""})
        return self._known[function]

    def _functions(self, call: cst.Call) -> Iterator[cst.FunctionDef]:
        if call in self.pipelines.sites:
            return
        found = meant(self.pipelines.values, call.func)
        for binding in found:
            if isinstance(binding.node, cst.FunctionDef):
                yield binding.node
            elif isinstance(binding.node, cst.ClassDef):
                yield from (method for method in methods(binding.node) if method.name.value == "__init__")
        if isinstance(call.func, cst.Attribute) and not found and not self.holds(call.func.value):
            yield from self.pipelines.methods.get(call.func.attr.value, ())

    def _mention(self, node: cst.CSTNode) -> str:
        parent = self.script.parents[node]
        if isinstance(parent, cst.Arg):
            call = self.script.parents[parent]
            if not isinstance(call, cst.Call) or not self._is_local(call):
                return "set-up"
            return "set-up" if self.through(call) == {"set-up"} else "use"
        if isinstance(parent, cst.Return | cst.Yield):
            return "use"
        if isinstance(parent, cst.AssignTarget):
            return "set-up"
        outer: cst.CSTNode = node
        while isinstance(self.script.parents[outer], cst.Attribute | cst.Subscript):
            outer = self.script.parents[outer]
        if outer is node:
            return ""
        holder = self.script.parents[outer]
        if isinstance(holder, cst.AssignTarget | cst.AugAssign | cst.Del):
            return "set-up"
        if isinstance(holder, cst.Call) and holder.func is outer:
            if isinstance(self.script.parents[holder], cst.Expr):
                return "set-up"
            return "set-up" if isinstance(outer, cst.Attribute) and outer.attr.value in FLUENT else ""
        return ""

    def _is_local(self, call: cst.Call) -> bool:
        """Say whether a call goes to a function of the script (which may use the pipeline) or makes another of it."""
        if call in self.pipelines.sites:
            return True
        if isinstance(call.func, cst.Name):
            return any(isinstance(b.node, cst.FunctionDef | cst.ClassDef) for b in bindings(self.script, call.func))
        return isinstance(call.func, cst.Attribute) and call.func.attr.value in self.pipelines.methods
