"""Scopes of a script: which function, class or module binds a name, by the rules of Python."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

import libcst as cst

COMPREHENSIONS = (cst.ListComp, cst.SetComp, cst.DictComp, cst.GeneratorExp)
OWNERS = (cst.Module, cst.FunctionDef, cst.Lambda, cst.ClassDef, *COMPREHENSIONS)
"""Nodes that open a scope."""

STORES = (cst.AssignTarget, cst.AnnAssign, cst.AugAssign, cst.For, cst.CompFor, cst.NamedExpr, cst.AsName)
STORES_IN_PATTERNS = (cst.MatchAs, cst.MatchStar, cst.MatchMapping)
UNPACKED = (cst.Tuple, cst.List, cst.Element, cst.StarredElement)


@dataclass(frozen=True, eq=False)
class Assigned:
    """One thing that binds a name.

    Args:
        node: the name, the parameter, the function or class, or the import statement.
        imported: the dotted name that is imported; empty for everything else.
    """

    name: str
    node: cst.CSTNode
    imported: str = ""


@dataclass(eq=False)
class Scope:
    """Names bound by a module, function, class or comprehension."""

    owner: cst.CSTNode
    parent: Scope | None
    names: dict[str, list[Assigned]] = field(default_factory=dict)
    outer: dict[str, Scope] = field(default_factory=dict)

    def find(self, name: str) -> list[Assigned]:
        """Return what binds a name, here or in the scopes around; empty for built-in names and unknown ones."""
        scope: Scope | None = self.outer.get(name, self)
        first = True
        while scope is not None:
            # names of a class are not seen by the functions in it
            if name in scope.names and (first or not isinstance(scope.owner, cst.ClassDef)):
                return scope.names[name]
            scope, first = scope.parent, False
        return []


class Scopes:
    """The scopes of one module."""

    def __init__(
        self,
        module: cst.Module,
        parents: Mapping[cst.CSTNode, cst.CSTNode],
        index: Mapping[type, list[cst.CSTNode]],
    ) -> None:
        self.parents = parents
        self.module = Scope(module, None)
        self._found: dict[cst.CSTNode, Scope] = {module: self.module}
        self._declare(index)
        self._collect(index)

    def of(self, node: cst.CSTNode) -> Scope:
        """Return the scope in which a node's names are looked up."""
        inner = node
        while (outer := self.parents.get(inner)) is not None:
            if isinstance(outer, OWNERS) and self._is_inside(outer, inner, node):
                return self._opened(outer)
            inner = outer
        return self.module

    def all(self) -> Iterable[Scope]:
        """Return the scopes that bind something."""
        return self._found.values()

    def _opened(self, owner: cst.CSTNode) -> Scope:
        if owner not in self._found:
            self._found[owner] = Scope(owner, self.of(owner))
        return self._found[owner]

    def _is_inside(self, owner: cst.CSTNode, child: cst.CSTNode, node: cst.CSTNode) -> bool:
        """Say whether a child of a scope's owner is evaluated in that scope and not in the one around."""
        match owner:
            case cst.FunctionDef() | cst.Lambda():
                return child is owner.body or (child is owner.params and self._is_parameter(node))
            case cst.ClassDef():
                return child is owner.body
            case cst.Module():
                return True
        assert isinstance(owner, COMPREHENSIONS)
        return not (child is owner.for_in and self._within(owner.for_in.iter, node))

    def _is_parameter(self, node: cst.CSTNode) -> bool:
        """Say whether a node is a parameter or its name; defaults and annotations belong outside."""
        holder = self.parents.get(node)
        return isinstance(node, cst.Param) or (isinstance(holder, cst.Param) and holder.name is node)

    def _within(self, ancestor: cst.CSTNode, node: cst.CSTNode) -> bool:
        inner: cst.CSTNode | None = node
        while inner is not None and inner is not ancestor:
            inner = self.parents.get(inner)
        return inner is ancestor

    def _declare(self, index: Mapping[type, list[cst.CSTNode]]) -> None:
        for node in (*index.get(cst.Global, ()), *index.get(cst.Nonlocal, ())):
            assert isinstance(node, cst.Global | cst.Nonlocal)
            scope = self.of(node)
            outside = self.module if isinstance(node, cst.Global) else scope.parent or self.module
            scope.outer.update((item.name.value, outside) for item in node.names)

    def _collect(self, index: Mapping[type, list[cst.CSTNode]]) -> None:
        for node in chain(*(index.get(kind, ()) for kind in (cst.FunctionDef, cst.ClassDef, cst.Param))):
            assert isinstance(node, cst.FunctionDef | cst.ClassDef | cst.Param)
            self._add(self.of(node), Assigned(node.name.value, node))
        for node in chain(*(index.get(kind, ()) for kind in (cst.Import, cst.ImportFrom))):
            assert isinstance(node, cst.Import | cst.ImportFrom)
            for found in imported_names(node):
                self._add(self.of(node), found)
        for node in index.get(cst.Name, ()):
            assert isinstance(node, cst.Name)
            holder = self._stored_by(node)
            if holder is not None:
                self._add(self._home(node, holder), Assigned(node.value, node))

    def _home(self, node: cst.Name, holder: cst.CSTNode) -> Scope:
        scope = self.of(node)
        # `:=` in a comprehension binds outside of it
        while isinstance(holder, cst.NamedExpr) and isinstance(scope.owner, COMPREHENSIONS) and scope.parent:
            scope = scope.parent
        return scope

    def _add(self, scope: Scope, found: Assigned) -> None:
        scope = scope.outer.get(found.name, scope)
        scope.names.setdefault(found.name, []).append(found)

    def _stored_by(self, name: cst.Name) -> cst.CSTNode | None:
        """Return what binds a name that is written to; `None` where it is read."""
        inner: cst.CSTNode = name
        holder = self.parents[name]
        while isinstance(holder, UNPACKED):
            inner, holder = holder, self.parents[holder]
        if isinstance(holder, STORES):
            place = holder.name if isinstance(holder, cst.AsName) else holder.target
            if isinstance(holder, cst.AsName) and isinstance(self.parents[holder], cst.ImportAlias):
                return None
            return holder if place is inner else None
        if isinstance(holder, STORES_IN_PATTERNS) and inner is name:
            stored = holder.rest if isinstance(holder, cst.MatchMapping) else holder.name
            return holder if stored is name else None
        return None


def imported_names(node: cst.Import | cst.ImportFrom) -> Iterator[Assigned]:
    """Yield what an import statement binds; a relative import keeps its dots."""
    if isinstance(node.names, cst.ImportStar):
        return
    before = ""
    if isinstance(node, cst.ImportFrom):
        module = dotted(node.module) if node.module is not None else ""
        before = "." * len(node.relative) + module + ("." if module else "")
    for alias in node.names:
        whole = dotted(alias.name)
        if alias.asname is not None and isinstance(alias.asname.name, cst.Name):
            yield Assigned(alias.asname.name.value, node, before + whole)
        elif isinstance(node, cst.Import):
            first = whole.partition(".")[0]
            yield Assigned(first, node, first)
        else:
            yield Assigned(whole, node, before + whole)


def dotted(node: cst.BaseExpression) -> str:
    """Return `a.b.c` as text; empty for what is no dotted name."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr.value}" if before else ""
    return ""


def absolute(name: str, package: str) -> str:
    """Return a dotted name with leading dots as seen from a package."""
    level = len(name) - len(name.lstrip("."))
    if level == 0:
        return name
    holder = package.split(".") if package else []
    holder = holder[: len(holder) - (level - 1)] if level > 1 else holder
    return ".".join([*holder, *filter(None, name[level:].split("."))])


def is_builtin(name: str) -> bool:
    """Say whether a name is one of Python's own."""
    return hasattr(builtins, name)
