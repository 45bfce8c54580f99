"""Constants of a script: what an expression is worth, as far as that is known without running it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path, PurePath

import libcst as cst

from diffopt.ir.script_builtins import BINARY, COMPARISONS, PATH_ATTRIBUTES, UNARY
from diffopt.ir.script_calls import call_value
from diffopt.ir.script_kinds import CommandLine, Instance, Known, LocalClass, LocalFunction, Missing, Symbol, Value
from diffopt.ir.script_library import is_exported
from diffopt.ir.script_names import Binding, attribute_bindings, bindings, self_class
from diffopt.ir.script_parameters import class_attribute, command_line_option, parameter
from diffopt.ir.script_text import Script

MAX_SIZE = 100_000
MAX_INDIRECTION = 60
MUTATORS = ("update", "setdefault", "pop", "clear", "append", "extend", "insert")
FAILURES = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, OSError, RuntimeError)


class Values:
    """Evaluates expressions of one script; remembers what it found."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._found: dict[cst.CSTNode, Value] = {}
        self._open: list[cst.CSTNode] = []
        self.assumed: dict[str, tuple[cst.CSTNode, str]] = {}

    def of(self, node: cst.CSTNode) -> Value:
        """Return an expression's value."""
        if node in self._found:
            return self._found[node]
        if node in self._open or len(self._open) > MAX_INDIRECTION:
            return Missing("its value depends on itself or on too many others", node)
        self.script.spend()
        self._open.append(node)
        try:
            value = self._evaluate(node)
            if isinstance(value, Known) and isinstance(value.value, str | list | tuple) and len(value.value) > MAX_SIZE:
                value = Missing("a very large value", node)
        except FAILURES as error:
            value = Missing(f"it cannot be computed: {type(error).__name__}", node)
        finally:
            self._open.pop()
        self._found[node] = value
        return value

    def symbol(self, node: cst.CSTNode) -> str:
        """Return the dotted name of what an expression was imported as; empty for anything else."""
        value = self.of(node)
        return value.value.name if isinstance(value, Known) and isinstance(value.value, Symbol) else ""

    def agree(self, values: Sequence[Value], node: cst.CSTNode) -> Value:
        """Return the one value that all have, or say that they differ."""
        if not values:
            return Missing("nothing gives it a value", node)
        missing = next((v for v in values if isinstance(v, Missing)), None)
        if missing is not None:
            return missing
        known = [v for v in values if isinstance(v, Known)]
        first = known[0]
        if all(_equal(v.value, first.value) for v in known[1:]):
            return first if len({v.origin for v in known}) == 1 else Known(first.value, node)
        return Missing(f"it differs between {self.script.lines(v.origin for v in known)}", node)

    def _evaluate(self, node: cst.CSTNode) -> Value:
        match node:
            case cst.SimpleString() | cst.Integer() | cst.Float():
                return Known(node.evaluated_value, node)
            case cst.ConcatenatedString():
                return self.combine([node.left, node.right], node, lambda parts: parts[0] + parts[1])  # type: ignore
            case cst.FormattedString():
                return self._formatted(node)
            case cst.List() | cst.Tuple() | cst.Set():
                return self._sequence(node)
            case cst.Dict():
                return self._dictionary(node)
            case cst.UnaryOperation():
                unary = UNARY.get(type(node.operator))
                return self.combine([node.expression], node, lambda v: unary(v[0])) if unary else self.runtime(node)
            case cst.BinaryOperation():
                return self._binary(node)
            case cst.Comparison():
                return self._comparison(node)
            case cst.BooleanOperation():
                left = self.of(node.left)
                if isinstance(left, Missing):
                    return left
                return left if bool(left.value) is isinstance(node.operator, cst.Or) else self.of(node.right)
            case cst.IfExp():
                test = self.of(node.test)
                if isinstance(test, Known) and not isinstance(test.value, Symbol):
                    return self.of(node.body if test.value else node.orelse)
                same = self.agree([self.of(node.body), self.of(node.orelse)], node)
                return same if isinstance(same, Known) else Missing(f"it depends on `{self.short(node.test)}`", node)
            case cst.NamedExpr() | cst.Await():
                return self.of(node.value if isinstance(node, cst.NamedExpr) else node.expression)
            case cst.Name():
                return self._name(node)
            case cst.Attribute():
                return self._attribute(node)
            case cst.Subscript():
                return self._subscript(node)
            case cst.Call():
                return call_value(self, node)
        return self.runtime(node)

    def runtime(self, node: cst.CSTNode) -> Missing:
        return Missing(f"`{self.short(node)}` is computed when the script runs", node)

    def short(self, node: cst.CSTNode) -> str:
        text = " ".join(self.script.code(node).split())
        return text if len(text) <= 40 else f"{text[:37]}..."

    def combine(
        self, nodes: Sequence[cst.CSTNode], whole: cst.CSTNode, make: Callable[[list[object]], object]
    ) -> Value:
        parts = []
        for node in nodes:
            value = self.of(node)
            if isinstance(value, Missing):
                return value
            parts.append(value.value)
        return Known(make(parts), whole)

    def partial_of(self, call: cst.Call) -> cst.Call | None:
        """Return the `functools.partial(...)` that made the function a call goes to."""
        made = [b.node for b in bindings(self.script, call.func)] if isinstance(call.func, cst.Name) else []
        inner = made[0] if len(made) == 1 else None
        if isinstance(inner, cst.Call) and inner.args and self.symbol(inner.func) == "functools.partial":
            return inner
        return None

    def _comparison(self, node: cst.Comparison) -> Value:
        if len(node.comparisons) != 1:
            return self.runtime(node)
        compare = COMPARISONS.get(type(node.comparisons[0].operator))
        if compare is None:
            return self.runtime(node)

        def checked(parts: list[object]) -> object:
            if any(isinstance(part, Symbol | Instance | LocalClass | LocalFunction) for part in parts):
                raise TypeError("only plain values are compared")
            return compare(*parts)

        return self.combine([node.left, node.comparisons[0].comparator], node, checked)

    def _binary(self, node: cst.BinaryOperation) -> Value:
        combine = BINARY.get(type(node.operator))
        if combine is None:
            return self.runtime(node)

        def checked(parts: list[object]) -> object:
            sizes = [p if isinstance(p, int) else len(p) for p in parts if isinstance(p, int | str | list | tuple)]
            repeats = isinstance(node.operator, cst.Multiply) and any(isinstance(p, str | list | tuple) for p in parts)
            limit = MAX_SIZE if repeats else MAX_SIZE**2
            if any(abs(size) > limit for size in sizes) or (repeats and abs(math.prod(sizes)) > limit):
                raise ValueError("too large to compute")
            if isinstance(node.operator, cst.Modulo) and not isinstance(parts[0], int | float):
                raise TypeError("formatting is not followed")
            return combine(*parts)

        return self.combine([node.left, node.right], node, checked)

    def _formatted(self, node: cst.FormattedString) -> Value:
        text = ""
        for part in node.parts:
            if isinstance(part, cst.FormattedStringText):
                text += part.value
                continue
            if not isinstance(part, cst.FormattedStringExpression) or part.format_spec or part.conversion:
                return self.runtime(node)
            value = self.of(part.expression)
            if isinstance(value, Missing):
                return value
            if not isinstance(value.value, str | int | float | PurePath):
                return self.runtime(part.expression)
            text += str(value.value)
        return Known(text.replace("{{", "{").replace("}}", "}"), node) if len(text) < MAX_SIZE else self.runtime(node)

    def _sequence(self, node: cst.List | cst.Tuple | cst.Set) -> Value:
        if any(isinstance(e, cst.StarredElement) for e in node.elements):
            return self.runtime(node)
        kind = tuple if isinstance(node, cst.Tuple) else list
        return self.combine([e.value for e in node.elements], node, lambda parts: kind(parts))

    def _dictionary(self, node: cst.Dict) -> Value:
        result: dict[object, object] = {}
        for element in node.elements:
            value = self.of(element.value)
            if isinstance(value, Missing):
                return value
            if isinstance(element, cst.StarredDictElement):
                if not isinstance(value.value, dict):
                    return self.runtime(element.value)
                result.update(value.value)
                continue
            assert isinstance(element, cst.DictElement)
            key = self.of(element.key)
            if isinstance(key, Missing):
                return key
            result[key.value] = value.value
        return Known(result, node)

    def _name(self, node: cst.Name) -> Value:
        if node.value in ("True", "False", "None"):
            return Known({"True": True, "False": False, "None": None}[node.value], node)
        if node.value == "__file__":
            return Known(str(Path(self.script.part(node).path).absolute()), node)
        found = bindings(self.script, node)
        if not found:
            return self._star_import(node)
        if self._is_changed(node):
            return Missing(f"`{node.value}` is changed after it is made", node)
        owner = self_class(self.script, node)
        if owner is not None:
            return Known(Instance(owner), node)
        values = [self._bound(node, binding) for binding in found]
        return self.agree(values, node)

    def _star_import(self, node: cst.Name) -> Value:
        for statement in self.script.all(cst.ImportFrom):
            if isinstance(statement.names, cst.ImportStar) and statement.module is not None:
                module = self.script.code(statement.module)
                if module.split(".")[0] == "diffusers" and not node.value.islower():
                    return Known(Symbol(f"diffusers.{node.value}"), node)
        # in a fragment, as documentation has them, a name of diffusers that nothing binds can mean nothing else
        if node.value == "torch" or (node.value[:1].isupper() and is_exported(node.value)):
            library = "torch" if node.value == "torch" else f"diffusers.{node.value}"
            self.assumed.setdefault(
                node.value, (node, f"`{node.value}`, which nothing here binds, is {library} itself")
            )
            return Known(Symbol(library), node)
        return Missing(f"`{node.value}` is not defined in this file", node)

    def _bound(self, name: cst.Name, binding: Binding) -> Value:
        if binding.qualified:
            return Known(Symbol(binding.qualified), name)
        match binding.node:
            case cst.ClassDef():
                return Known(LocalClass(binding.node), name)
            case cst.FunctionDef():
                return Known(LocalFunction(binding.node), name)
            case cst.Param():
                return parameter(self, binding.node)
            case cst.BaseExpression():
                value = self.of(binding.node)
            case _:
                return Missing(f"`{name.value}` gets its value when the script runs", name)
        if binding.each:
            return Missing(f"`{name.value}` takes several values in a loop", name)
        for index in binding.steps:
            if isinstance(value, Missing):
                return value
            items = value.value
            if not isinstance(items, list | tuple) or index >= len(items):
                return self.runtime(name)
            elements = value.origin.elements if isinstance(value.origin, cst.Tuple | cst.List) else []
            value = self.of(elements[index].value) if index < len(elements) else Known(items[index], name)
        return value

    def _is_changed(self, node: cst.Name) -> bool:
        """Say whether a container of that name is written to, before it is read, in a way that is not followed."""
        writes = [w for w in self.writes.get(node.value, ()) if self.script.start(w) < self.script.start(node)]
        if not writes:
            return False
        made = {binding.node for binding in bindings(self.script, node)}
        return any(binding.node in made for write in writes for binding in bindings(self.script, write))

    @cached_property
    def writes(self) -> dict[str, list[cst.Name]]:
        """Names of containers that are written to after they are made."""
        found: dict[str, list[cst.Name]] = {}
        script = self.script
        places: list[cst.BaseExpression] = [t.target for t in script.all(cst.AssignTarget)]
        places += [t.target for t in script.all(cst.AugAssign)] + [t.target for t in script.all(cst.Del)]
        methods = [c.func for c in script.all(cst.Call) if isinstance(c.func, cst.Attribute)]
        for holder in (
            *(p.value for p in places if isinstance(p, cst.Subscript)),
            *(m.value for m in methods if m.attr.value in MUTATORS),
        ):
            if isinstance(holder, cst.Name):
                found.setdefault(holder.value, []).append(holder)
        return found

    @cached_property
    def attribute_targets(self) -> dict[str, list[tuple[cst.Attribute, cst.BaseExpression]]]:
        """Assignments to attributes, by the attribute's name."""
        found: dict[str, list[tuple[cst.Attribute, cst.BaseExpression]]] = {}
        for statement in self.script.all(cst.Assign):
            for target in statement.targets:
                if isinstance(target.target, cst.Attribute):
                    found.setdefault(target.target.attr.value, []).append((target.target, statement.value))
        for annotated in self.script.all(cst.AnnAssign):
            if isinstance(annotated.target, cst.Attribute) and annotated.value is not None:
                found.setdefault(annotated.target.attr.value, []).append((annotated.target, annotated.value))
        return found

    @cached_property
    def names_read(self) -> dict[str, list[cst.Name]]:
        """Names, by what they are."""
        found: dict[str, list[cst.Name]] = {}
        for name in self.script.all(cst.Name):
            found.setdefault(name.value, []).append(name)
        return found

    @cached_property
    def calls_by_name(self) -> dict[str, list[cst.Call]]:
        """Calls, by the last name of what is called."""
        found: dict[str, list[cst.Call]] = {}
        for call in self.script.all(cst.Call):
            name = call.func.attr if isinstance(call.func, cst.Attribute) else call.func
            if isinstance(name, cst.Name):
                found.setdefault(name.value, []).append(call)
        return found

    def _attribute(self, node: cst.Attribute) -> Value:
        owner, name = self.of(node.value), node.attr.value
        if isinstance(owner, Missing):
            return owner
        match owner.value:
            case Symbol(name=dotted):
                found = attribute_bindings(self.script, node)
                if found:
                    return self.agree([self._bound(node.attr, binding) for binding in found], node)
                return Known(Symbol(f"{dotted}.{name}"), node)
            case PurePath() if name in PATH_ATTRIBUTES:
                return Known(getattr(owner.value, name), node)
            case CommandLine():
                return command_line_option(self, name, node)
            case Instance() | LocalClass():
                return class_attribute(self, owner.value, name, node)
            case dict() if isinstance(owner.origin, cst.Call) and name in owner.value:
                return Known(owner.value[name], node)
        return self.runtime(node)

    def _subscript(self, node: cst.Subscript) -> Value:
        if self.symbol(node.value) == "os.environ":
            return Missing(f"`{self.short(node)}` is an environment variable", node)
        if self.symbol(node.value) == "sys.argv":
            return Missing(f"`{self.short(node)}` comes from the command line", node)
        if len(node.slice) != 1 or not isinstance(index := node.slice[0].slice, cst.Index):
            return self.runtime(node)
        value = self.combine([node.value, index.value], node, lambda parts: parts[0][parts[1]])  # type: ignore[index]
        holder = self.of(node.value)
        if isinstance(value, Known) and isinstance(holder, Known) and isinstance(holder.origin, cst.Dict):
            key = self.of(index.value)
            for element in holder.origin.elements:
                if isinstance(element, cst.DictElement) and self._same(element.key, key):
                    return self.of(element.value)
        return value

    def _same(self, node: cst.BaseExpression, key: Value) -> bool:
        value = self.of(node)
        return isinstance(value, Known) and isinstance(key, Known) and value.value == key.value


def _equal(one: object, other: object) -> bool:
    numbers = type(one) in (int, float) and type(other) in (int, float)
    return (numbers or type(one) is type(other)) and one == other
