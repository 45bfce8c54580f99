"""Where in a script a pipeline is complete: the place for statements that change it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from diffopt.ir.errors import DiffoptError
from diffopt.ir.script_choice import Choice
from diffopt.ir.script_lines import MARK
from diffopt.ir.script_names import BLOCKS, bindings
from diffopt.ir.script_parameters import callers
from diffopt.ir.script_pipelines import FLUENT, Pipelines, Site

Unit = cst.BaseSmallStatement | cst.BaseCompoundStatement
DEFERRED = (cst.FunctionDef, cst.ClassDef, cst.Lambda)
REPEATED = (cst.Lambda, cst.ListComp, cst.SetComp, cst.DictComp, cst.GeneratorExp, cst.IfExp, cst.BooleanOperation)


@dataclass(frozen=True, eq=False)
class Place:
    """Where statements go.

    Args:
        unit: the statement they follow; with `hoist`, the one they precede.
        pipe: the pipeline there, as an expression of the script.
        hoist: the expression to give a name first, when the script gives it none.
        ours: statements of an earlier patch, which stand there already.
    """

    unit: Unit
    pipe: str
    hoist: cst.BaseExpression | None = None
    ours: tuple[Unit, ...] = ()


def places(pipelines: Pipelines, choice: Choice) -> list[Place]:
    """Return where statements on the chosen pipeline go: one place, or one for each way in which it is built.

    Raises:
        DiffoptError: it is built where no statement can follow, as in a lambda.
    """
    return _Placement(pipelines, choice).places()


class _Placement:
    """Finds places; holds what all its questions are about."""

    def __init__(self, pipelines: Pipelines, choice: Choice) -> None:
        self.pipelines, self.script = pipelines, pipelines.script
        self.sites, self.calls = frozenset(choice.sites), frozenset(choice.calls)
        self.order = choice.sites

    def places(self) -> list[Place]:
        targets = {site.target for site in self.order}
        homes = {self.script.enclosing(site.call, cst.FunctionDef) for site in self.order}
        if len(self.order) > 1 and len(targets) == 1 and None not in targets and len(homes) == 1:
            return [self._assigned(self._common_unit(), str(self.order[0].target))]
        return [self._of_site(site) for site in self.order]

    def _of_site(self, site: Site) -> Place:
        unit = self._unit(site.call)
        if site.target is not None:
            return self._returned(unit) or self._assigned(unit, site.target)
        if isinstance(unit, cst.Return) and unit.value is site.chained:
            return self._returned(unit) or Place(unit, self._fresh_name(), hoist=site.chained)
        self._check_hoist(site, unit)
        return Place(unit, self._fresh_name(), hoist=site.chained)

    def _unit(self, node: cst.CSTNode) -> Unit:
        """Return the statement that holds an expression."""
        return next(a for a in self.script.ancestors(node) if isinstance(a, Unit))

    def _common_unit(self) -> Unit:
        """Return the innermost statement that holds all sites."""
        chains = [[site.call, *self.script.ancestors(site.call)] for site in self.order]
        shared = next(n for n in chains[0] if isinstance(n, BLOCKS) and all(n in chain for chain in chains[1:]))
        outermost = [node for node in chains[-1][: chains[-1].index(shared)] if isinstance(node, Unit)][-1]
        assert isinstance(outermost, cst.BaseSmallStatement | cst.BaseCompoundStatement)
        return outermost

    def _assigned(self, unit: Unit, pipe: str) -> Place:
        """Go past the statements that set the pipeline up."""
        last: Unit = unit
        ours: list[Unit] = []
        for follower in self._followers(unit):
            role = self._role(follower)
            if isinstance(follower, cst.Return) and role == "use" and self._is_set_up_further(follower.value):
                return Place(follower, pipe, hoist=follower.value)
            if role == "set-up" and self._is_ours(follower):
                ours.append(follower)
                continue
            if role == "use":
                break
            if role == "set-up":
                last, ours = follower, []
        return Place(last, pipe, ours=tuple(ours))

    def _returned(self, unit: Unit) -> Place | None:
        """Follow the pipeline out of the function that builds it, where its only caller sets it up further."""
        function = self.script.enclosing(unit, cst.FunctionDef)
        if function is None:
            return None
        found = list(callers(self.pipelines.values, function))
        if len(found) != 1 or not self.pipelines.of(found[0]) & self.sites:
            return None
        statement = self._unit(found[0])
        if not isinstance(statement, cst.Assign) or statement.value is not found[0]:
            return None
        target = statement.targets[0].target
        if not isinstance(target, cst.Name | cst.Attribute):
            return None
        place = self._assigned(statement, self.script.code(target))
        return place if place.unit is not statement or place.ours else None

    def _followers(self, unit: Unit) -> Iterator[Unit]:
        """Yield the statements behind one in its block."""
        block = next(a for a in self.script.ancestors(unit) if isinstance(a, BLOCKS))
        assert isinstance(block, cst.IndentedBlock | cst.SimpleStatementSuite | cst.Module)
        found = False
        for line in block.body:
            for follower in line.body if isinstance(line, cst.SimpleStatementLine) else (line,):
                if found and isinstance(follower, Unit):
                    yield follower
                found = found or follower is unit

    def _is_ours(self, unit: Unit) -> bool:
        line = self.script.parents[unit]
        if not isinstance(line, cst.SimpleStatementLine):
            return False
        # a line of the user's in which an argument was changed carries our comment too, and stays the user's
        if isinstance(unit, cst.Assign) and not isinstance(unit.targets[0].target, cst.Attribute):
            return False
        inside = (node for node in self._inside(line) if isinstance(node, cst.Comment))
        return any(comment.value.startswith(MARK) for comment in inside)

    def _is_set_up_further(self, node: cst.BaseExpression | None) -> bool:
        """Say whether a returned expression is the pipeline after one more call, as in `return pipe.to("cpu")`."""
        return isinstance(node, cst.Call) and bool(self.pipelines.of(node) & self.sites)

    def _role(self, unit: Unit) -> str:
        """Say what a statement does with the pipeline: `use` it, `set-up`, or nothing that matters."""
        if isinstance(unit, cst.FunctionDef | cst.ClassDef):
            return ""
        mentions = [node for node in self._inside(unit) if self._holds(node)]
        roles = {"use" if self.script.enclosing(node, cst.Return) else self._mention(node) for node in mentions}
        if any(node in self.calls for node in self._inside(unit)):
            roles.add("use")
        return next((role for role in ("use", "set-up") if role in roles), "")

    def _inside(self, unit: cst.CSTNode) -> Iterator[cst.CSTNode]:
        stack: list[cst.CSTNode] = [unit]
        while stack:
            node = stack.pop()
            yield node
            if not isinstance(node, DEFERRED):
                stack.extend(node.children)

    def _holds(self, node: cst.CSTNode) -> bool:
        if not isinstance(node, cst.Name | cst.Attribute | cst.Subscript):
            return False
        return bool(self.pipelines.of(node) & self.sites)

    def _mention(self, node: cst.CSTNode) -> str:
        parent = self.script.parents[node]
        if isinstance(parent, cst.Arg):
            call = self.script.parents[parent]
            return "use" if isinstance(call, cst.Call) and self._is_local(call) else "set-up"
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

    def _fresh_name(self) -> str:
        used = {name.value for name in self.script.all(cst.Name)}
        return next(name for name in ("pipe", "pipeline", "diffopt_pipe", "diffopt_pipeline") if name not in used)

    def _check_hoist(self, site: Site, unit: Unit) -> None:
        """Refuse where naming the pipeline first would change when, or how often, it is built."""
        between = self._up_to(site.chained, unit)
        again = isinstance(unit, cst.While) or isinstance(self.script.parents.get(unit), cst.If)
        if again or any(isinstance(node, REPEATED) for node in between):
            raise DiffoptError(
                "the pipeline is built where no statement can follow it",
                where=self.script.where(site.call),
                hint="assign it to a name on a line of its own",
            )

    def _up_to(self, node: cst.CSTNode, end: cst.CSTNode) -> Sequence[cst.CSTNode]:
        found = []
        for ancestor in self.script.ancestors(node):
            if ancestor is end:
                break
            found.append(ancestor)
        return found
