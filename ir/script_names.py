"""Names of a script: what a name stands for at the place where it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from diffopt.ir.script_scopes import Assigned, absolute, dotted, is_builtin
from diffopt.ir.script_text import Part, Script

Function = cst.FunctionDef | cst.Lambda
BLOCKS = (cst.IndentedBlock, cst.SimpleStatementSuite, cst.Module)


@dataclass(frozen=True, eq=False)
class Binding:
    """One way a name got its value.

    Args:
        node: the definition: an expression, a `Param`, a function, a class, or anything else that binds.
        steps: indices to unpack from the value, outermost first, for `a, (b, c) = value`.
        each: the name takes the items of the value one after the other (a loop's target).
        qualified: dotted name of what was imported; empty otherwise.
    """

    node: cst.CSTNode
    steps: tuple[int, ...] = ()
    each: bool = False
    qualified: str = ""


def bindings(script: Script, name: cst.Name) -> list[Binding]:
    """Return what a name may stand for where it is read; empty when it is bound nowhere."""
    known: dict[cst.CSTNode, list[Binding]] = script.bound
    if name not in known:
        known[name] = _bindings(script, name)
    return known[name]


def _bindings(script: Script, name: cst.Name) -> list[Binding]:
    found = script.scope(name).find(name.value)
    if not found:
        starred = _starred(script, name)
        if starred or not is_builtin(name.value):
            return starred
        return [Binding(name, qualified=f"builtins.{name.value}")]
    made = [_binding(script, a) for a in list(_reaching(script, name, found)) or found]
    return [inner for binding in made for inner in _followed(script, binding)]


def attribute_bindings(script: Script, node: cst.Attribute) -> list[Binding]:
    """Return what `module.name` may stand for, where the module is a file of the project."""
    if not script.modules:
        return []
    root: cst.BaseExpression = node
    while isinstance(root, cst.Attribute):
        root = root.value
    if not isinstance(root, cst.Name):
        return []
    rest = dotted(node).partition(".")[2]
    modules = [b for b in bindings(script, root) if b.qualified]
    return [inner for b in modules for inner in exported(script, script.part(b.node), f"{b.qualified}.{rest}")]


def exported(script: Script, part: Part, qualified: str, depth: int = 0) -> list[Binding]:
    """Return what an imported name stands for, where it comes from a file of the project."""
    module, _, name = absolute(qualified, part.package).rpartition(".")
    other = script.modules.get(module)
    if other is None or depth > 8:
        return []
    found = [_binding(script, a) for a in other.scopes.module.names.get(name, ())]
    return [inner for binding in found for inner in _followed(script, binding, depth + 1)]


def _followed(script: Script, binding: Binding, depth: int = 0) -> list[Binding]:
    """Follow an import into the file of the project that it names."""
    if not binding.qualified or not script.modules:
        return [binding]
    return exported(script, script.part(binding.node), binding.qualified, depth) or [binding]


def _starred(script: Script, name: cst.Name) -> list[Binding]:
    """Return what a name stands for that comes from `from module import *`."""
    part = script.part(name)
    for node in script.all(cst.ImportFrom) if script.modules else ():
        if isinstance(node.names, cst.ImportStar) and script.part(node) is part:
            module = "." * len(node.relative) + (dotted(node.module) if node.module is not None else "")
            found = exported(script, part, f"{module}.{name.value}" if node.module is not None else module + name.value)
            if found:
                return found
    return []


def _reaching(script: Script, use: cst.Name, found: Sequence[Assigned]) -> Iterator[Assigned]:
    """Leave out assignments that another one overwrites before the name is read."""
    if len(found) < 2:
        yield from found
        return
    script.spend(len(found))
    home = _function_of(script, use)
    if any(_function_of(script, a.node) is not home for a in found):
        usual = [a for a in found if script.enclosing(a.node, cst.ExceptHandler) is None]
        yield from usual or found
        return
    here = script.start(use)
    around = [use, *script.ancestors(use)]
    loops = {a for a in around if isinstance(a, cst.For | cst.While | cst.CompFor)}
    ordered = sorted(found, key=lambda a: script.start(a.node), reverse=True)
    for assignment in ordered:
        script.spend()
        node = assignment.node
        if script.start(node) >= here or _statement(script, node) is _statement(script, use):
            if loops.intersection(script.ancestors(node)):
                yield assignment
            continue
        common = next((a for a in script.ancestors(node) if a in around), None)
        if isinstance(common, cst.If) and not loops:
            continue
        if script.enclosing(node, cst.ExceptHandler) in around or script.enclosing(node, cst.ExceptHandler) is None:
            yield assignment
        if script.enclosing(node, *BLOCKS) in around:
            return


def _statement(script: Script, node: cst.CSTNode) -> cst.CSTNode | None:
    return next((a for a in script.ancestors(node) if isinstance(a, cst.BaseSmallStatement)), None)


def _function_of(script: Script, node: cst.CSTNode) -> Function | None:
    """Return the function whose body (not signature) holds a node."""
    inner = node
    for ancestor in script.ancestors(node):
        if isinstance(ancestor, cst.FunctionDef | cst.Lambda) and inner is ancestor.body:
            return ancestor
        if isinstance(ancestor, cst.FunctionDef | cst.Lambda) and isinstance(inner, cst.Parameters):
            return ancestor if isinstance(node, cst.Param) else _function_of(script, ancestor)
        inner = ancestor
    return None


def _binding(script: Script, assignment: Assigned) -> Binding:
    node = assignment.node
    if assignment.imported:
        return Binding(node, qualified=assignment.imported)
    if not isinstance(node, cst.Name):
        return Binding(node)
    steps: list[int] = []
    inner: cst.CSTNode = node
    for ancestor in script.ancestors(node):
        match ancestor:
            case cst.Tuple() | cst.List():
                steps.insert(0, next(i for i, e in enumerate(ancestor.elements) if e is inner))
            case cst.Element():
                pass
            case cst.AssignTarget():
                assign = script.parents[ancestor]
                return Binding(assign.value if isinstance(assign, cst.Assign) else assign, tuple(steps))
            case cst.AnnAssign() | cst.NamedExpr():
                return Binding(ancestor.value if ancestor.value is not None else ancestor, tuple(steps))
            case cst.For() | cst.CompFor():
                return Binding(ancestor.iter, tuple(steps), each=True)
            case _:
                return Binding(ancestor)
        inner = ancestor
    return Binding(node)


def method_class(script: Script, function: cst.CSTNode) -> cst.ClassDef | None:
    """Return the class whose method a function is."""
    block = script.parents.get(function)
    owner = script.parents.get(block) if block is not None else None
    return owner if isinstance(owner, cst.ClassDef) else None


def self_class(script: Script, name: cst.Name) -> cst.ClassDef | None:
    """Return the class of which a name is `self` (the first parameter of a method)."""
    for found in bindings(script, name):
        if not isinstance(found.node, cst.Param):
            continue
        function = script.enclosing(found.node, cst.FunctionDef)
        if function is not None and function.params.params[:1] and function.params.params[0] is found.node:
            return method_class(script, function)
    return None


def signature(function: Function) -> list[cst.Param]:
    """Return a function's parameters in the order in which positions fill them."""
    return [*function.params.posonly_params, *function.params.params, *function.params.kwonly_params]
