"""Where in a script a pipeline is complete: the place for statements that change it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import libcst as cst

from diffopt.ir.emit_statements import RUNTIME
from diffopt.ir.errors import DiffoptError
from diffopt.ir.script_choice import Choice
from diffopt.ir.script_effects import Effects
from diffopt.ir.script_lines import OURS
from diffopt.ir.script_names import BLOCKS
from diffopt.ir.script_parameters import callers
from diffopt.ir.script_pipelines import Pipelines, Site

Unit = cst.BaseSmallStatement | cst.BaseCompoundStatement
REPEATED = (cst.Lambda, cst.ListComp, cst.SetComp, cst.DictComp, cst.GeneratorExp, cst.IfExp, cst.BooleanOperation)


@dataclass(frozen=True, eq=False)
class Place:
    """Where statements go.

    Args:
        unit: the statement they follow; with `hoist`, the one they precede.
        pipe: the pipeline there, as an expression of the script.
        hoist: the expression to give a name first, when the script gives it none.
        ours: statements of an earlier patch, which stand there already.
        sites: where the pipelines are built that are complete here.
    """

    unit: Unit
    pipe: str
    hoist: cst.BaseExpression | None = None
    ours: tuple[Unit, ...] = ()
    sites: tuple[Site, ...] = ()


def places(pipelines: Pipelines, choice: Choice) -> list[Place]:
    """Return where statements on the chosen pipeline go: one place, or one for each way in which it is built.

    Raises:
        DiffoptError: it is built where no statement can follow, as in a lambda.
    """
    return _Placement(pipelines, choice).places()


def is_ours(pipelines: Pipelines, unit: cst.CSTNode) -> bool:
    """Say whether a statement is of an earlier patch: it has our comment, and a form in which we write statements."""
    script = pipelines.script
    line = script.parents[unit]
    if not isinstance(line, cst.SimpleStatementLine) or not _has_our_form(pipelines, unit):
        return False
    stack: list[cst.CSTNode] = [line]
    while stack:
        node = stack.pop()
        if isinstance(node, cst.Comment) and OURS.fullmatch(node.value):
            return True
        stack.extend(node.children)
    return False


def _has_our_form(pipelines: Pipelines, unit: cst.CSTNode) -> bool:
    if isinstance(unit, cst.Expr) and isinstance(unit.value, cst.Call):
        return pipelines.values.symbol(unit.value.func).startswith(f"{RUNTIME}.")
    if not isinstance(unit, cst.Assign) or not isinstance(unit.value, cst.Call) or not unit.value.args:
        return False
    target, made, code = unit.targets[0].target, unit.value, pipelines.script.code
    return (
        isinstance(target, cst.Attribute)
        and target.attr.value.endswith("scheduler")
        and isinstance(made.func, cst.Attribute)
        and made.func.attr.value == "from_config"
        and code(made.args[0].value) == f"{code(target)}.config"
    )


class _Placement:
    """Finds places; holds what all its questions are about."""

    def __init__(self, pipelines: Pipelines, choice: Choice) -> None:
        self.pipelines, self.script = pipelines, pipelines.script
        self.effects = Effects(pipelines, choice)
        self.sites, self.order = frozenset(choice.sites), choice.sites

    def places(self) -> list[Place]:
        targets = {site.target for site in self.order}
        homes = {self.script.enclosing(site.call, cst.FunctionDef) for site in self.order}
        same = len(self.order) > 1 and len(targets) == 1 and None not in targets and len(homes) == 1
        if same and not any(map(self._returns_at_once, self.order)):
            return [replace(self._assigned(self._common_unit(), str(self.order[0].target)), sites=self.order)]
        return [replace(self._of_site(site), sites=(site,)) for site in self.order]

    def _of_site(self, site: Site) -> Place:
        unit = self._unit(site.call)
        unit = self._tried(site, unit) if site.target is not None else unit
        if site.target is not None:
            return self._returned(unit) or self._assigned(unit, site.target)
        if isinstance(unit, cst.Return) and unit.value is site.chained:
            return self._returned(unit) or Place(unit, self._fresh_name(), hoist=site.chained)
        self._check_hoist(site, unit)
        return Place(unit, self._fresh_name(), hoist=site.chained)

    def _unit(self, node: cst.CSTNode) -> Unit:
        """Return the statement that holds an expression."""
        return next(a for a in self.script.ancestors(node) if isinstance(a, Unit))

    def _tried(self, site: Site, unit: Unit) -> Unit:
        """Return the outermost `try` around a statement in which another of its branches builds the pipeline too.

        Raises:
            DiffoptError: a branch goes on without a pipeline, or with something else for it.
        """
        found = unit
        inner: cst.CSTNode = unit
        for ancestor in self.script.ancestors(unit):
            if isinstance(ancestor, cst.FunctionDef | cst.Lambda):
                break
            if isinstance(ancestor, cst.Try) and (inner is ancestor.body or isinstance(inner, cst.ExceptHandler)):
                blocks = [ancestor.body, *(handler.body for handler in ancestor.handlers)]
                builds = [self._builds(site, block) and not self._leaves(block) for block in blocks]
                if sum(builds) > 1:
                    found = ancestor
                    for block, built in zip(blocks, builds, strict=True):
                        if not built and not self._leaves(block):
                            raise DiffoptError(
                                "the pipeline is built in some branches of a `try` and not in this one",
                                where=self.script.where(block),
                                hint="build it in every branch, or raise",
                            )
            inner = ancestor
        return found

    def _builds(self, site: Site, block: cst.CSTNode) -> bool:
        """Say whether a block gives a pipeline to the same name."""
        return any(
            other.target == site.target and any(a is block for a in self.script.ancestors(other.call))
            for other in self.pipelines.sites.values()
        )

    def _returns_at_once(self, site: Site) -> bool:
        """Say whether a pipeline is returned from the branch in which it is built."""
        block = next(a for a in self.script.ancestors(site.call) if isinstance(a, BLOCKS))
        inside = not isinstance(self.script.parents.get(block), cst.FunctionDef)
        return inside and isinstance(block, cst.BaseSuite) and self._leaves(block)

    def _leaves(self, block: cst.BaseSuite) -> bool:
        """Say whether a block ends by going elsewhere."""
        last = block.body[-1]
        ends = last.body[-1] if isinstance(last, cst.SimpleStatementLine) else last
        if isinstance(ends, cst.Expr) and isinstance(ends.value, cst.Call):
            return self.pipelines.values.symbol(ends.value.func) in ("sys.exit", "os._exit", "builtins.exit")
        return isinstance(ends, cst.Raise | cst.Return | cst.Continue | cst.Break)

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
            role = self.effects.role(follower)
            if isinstance(follower, cst.Return) and role == "use" and self._is_set_up_further(follower.value):
                return Place(follower, pipe, hoist=follower.value)
            if role == "set-up" and is_ours(self.pipelines, follower):
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
        if not isinstance(statement, cst.Assign) or not self.pipelines.of(statement.value) & self.sites:
            return None
        target = statement.targets[0].target
        if not isinstance(target, cst.Name | cst.Attribute):
            return None
        place = self._assigned(statement, self.script.code(target))
        wrapped = statement.value is not found[0] and self.effects.role(statement) == "set-up"
        return place if wrapped or place.unit is not statement or place.ours else None

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

    def _is_set_up_further(self, node: cst.BaseExpression | None) -> bool:
        """Say whether a returned expression is the pipeline after one more call, as in `return pipe.to("cpu")`."""
        return isinstance(node, cst.Call) and bool(self.pipelines.of(node) & self.sites)

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
