"""Whether a script uses a pipeline between two of its calls, in whatever way."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor.facts import FUNCTIONS, Facts, inside
from diffopt.ir.script_pipelines import Site

HARMLESS = ("enable_", "disable_", "set_", "load_")
"""Beginnings of methods that work wherever the weights are."""
SETTINGS = frozenset({"dtype", "torch_dtype", "variant", "revision", "cache_dir", "token", "subfolder"})
"""Arguments of a loader that hold nothing of the pipeline."""

ANYTHING = ("exec", "eval", "globals", "locals")
"""Functions that may get at a pipeline without its name."""


def used_between(facts: Facts, site: Site, first: cst.CSTNode, last: cst.CSTNode | None = None) -> bool:
    """Say whether anything of a pipeline may be used behind `first`, before `last`.

    A name that was given something of the pipeline counts, and so does a function that mentions it. Only settings are
    no use: `pipe.enable_...()`, `pipe.set_...()`, `pipe.load_...()`, `pipe.scheduler = ...`. Without `last`, everything
    behind counts that is not a call of the pipeline itself, functions of the script too.
    """
    script = facts.script
    function = script.enclosing(first, *FUNCTIONS)
    if last is not None and script.enclosing(last, *FUNCTIONS) is not function:
        return True
    mentions = {node for node in facts.mentions_of(site) if not _within(facts, node, site.call)}
    tainted = _tainted(facts, site, mentions)
    end = script.start(last) if last is not None else None
    names = [name for name in script.all(cst.Name) if name.value in tainted]
    for node in (*mentions, *names):
        start = script.start(node)
        if _within(facts, node, first) or (last is not None and _within(facts, node, last)):
            continue
        elsewhere = end is None and script.enclosing(node, *FUNCTIONS) is not function
        behind = start >= script.end(first) and (end is None or start < end)
        if (behind or elsewhere) and not _harmless(facts, node, mentions, last is None):
            return True
    return _handed_on(facts, first)


def used_by_hand(facts: Facts, site: Site, part: str) -> bool:
    """Say whether a script may run a part of a pipeline, `vae`, or hand it to something that may."""
    for node in facts.script.all(cst.Attribute):
        parent = facts.script.parents.get(node)
        if node.attr.value != part or site not in facts.pipelines.of(node.value):
            continue
        if isinstance(parent, cst.Attribute) and parent.attr.value.startswith((*HARMLESS, "to", "config", "dtype")):
            continue
        if not isinstance(parent, cst.AssignTarget) and not (
            isinstance(parent, cst.Arg) and facts.called(_call(facts, parent)) == "torch.compile"
        ):
            return True
    return False


def _call(facts: Facts, arg: cst.Arg) -> cst.Call:
    found = facts.script.enclosing(arg, cst.Call)
    assert found is not None
    return found


def _handed_on(facts: Facts, node: cst.CSTNode) -> bool:
    """Say whether the value of a call goes on to something else than a name."""
    parent = facts.script.parents.get(node)
    return not isinstance(parent, cst.Expr | cst.Assign | cst.AnnAssign)


def _tainted(facts: Facts, site: Site, mentions: set[cst.CSTNode]) -> set[str]:
    """Return the names that may hold something of a pipeline, or use it when they are called."""
    script = facts.script
    tainted = set(ANYTHING)
    for index, arg in enumerate(site.call.args):
        word = arg.keyword.value if arg.keyword is not None else ""
        if word in SETTINGS or (index == 0 and site.loader in ("from_pretrained", "from_single_file")):
            continue
        tainted |= {n.value for n in inside(arg.value) if isinstance(n, cst.Name) and _may_hold(facts, n)}
    for node in mentions:
        while isinstance(node, cst.Attribute):
            node = node.value
        if isinstance(node, cst.Name):
            tainted.add(node.value)
    while True:
        count = len(tainted)
        for name in script.all(cst.Name):
            if name.value in tainted or name in mentions:
                tainted |= _receivers(facts, name)
        if len(tainted) == count:
            return tainted


def _may_hold(facts: Facts, name: cst.Name) -> bool:
    return (
        name.value not in ("True", "False", "None")
        and not facts.symbol(name)
        and isinstance(facts.bound(name), cst.Call | cst.Name | cst.Attribute | None)
    )


def _receivers(facts: Facts, name: cst.Name) -> set[str]:
    """Return the names that the statement, function or class around a name, or a method it is handed to, gives it to."""
    found = set[str]()
    inner: cst.CSTNode = name
    for around in facts.script.ancestors(name):
        match around:
            case cst.Assign() if around.value is inner:
                found |= {n.value for t in around.targets for n in inside(t.target) if isinstance(n, cst.Name)}
            case cst.AnnAssign() if around.value is inner:
                found |= {n.value for n in inside(around.target) if isinstance(n, cst.Name)}
            case cst.For() if around.iter is inner:
                found |= {n.value for n in inside(around.target) if isinstance(n, cst.Name)}
            case cst.NamedExpr() if around.value is inner:
                found |= {n.value for n in inside(around.target) if isinstance(n, cst.Name)}
            case cst.WithItem() if around.asname is not None and around.item is inner:
                found |= {n.value for n in inside(around.asname.name) if isinstance(n, cst.Name)}
            case cst.Call(func=cst.Attribute(value=holder)) if around.func is not inner:
                found |= {n.value for n in inside(holder) if isinstance(n, cst.Name) and _keeps(facts, n)}
            case cst.FunctionDef() | cst.ClassDef():
                found.add(around.name.value)
        inner = around
    return found


def _keeps(facts: Facts, name: cst.Name) -> bool:
    """Say whether an object may keep what its methods are given: all but imported modules and classes."""
    return not facts.symbol(name)


def _harmless(facts: Facts, node: cst.CSTNode, mentions: set[cst.CSTNode], calls: bool) -> bool:
    """Say whether a mention of a pipeline uses nothing of it."""
    parents = facts.script.parents
    parent = parents.get(node)
    statement = facts.script.enclosing(node, cst.Assign)
    replaces = statement is not None and all(_scheduler(target.target) for target in statement.targets)
    # `pipe.scheduler = X.from_config(pipe.scheduler.config)`; a helper that is given the pipeline may do anything
    if replaces and isinstance(parent, cst.Attribute) and (parent.attr.value == "scheduler" or parent in mentions):
        return True
    if isinstance(parent, cst.Attribute) and parent.attr is node:
        return True  # `other.pipe` is the name of something else; what holds the pipeline is looked at by itself
    if isinstance(parent, cst.AssignTarget) or (isinstance(parent, cst.Arg) and parent.keyword is node):
        return True
    if isinstance(parent, cst.FunctionDef | cst.ClassDef | cst.Param):
        return True
    if calls and isinstance(parent, cst.Call) and parent.func is node and node in mentions:
        return True
    name = ""
    while isinstance(parent, cst.Attribute) and parent.value is node:
        if parent in mentions:
            return True  # the longer expression is looked at by itself
        node, name, parent = parent, parent.attr.value, parents.get(parent)
    if isinstance(parent, cst.AssignTarget):
        return name == "scheduler" or not _in(mentions, node)
    return isinstance(parent, cst.Call) and parent.func is node and name.startswith(HARMLESS)


def _in(mentions: set[cst.CSTNode], node: cst.CSTNode) -> bool:
    while isinstance(node, cst.Attribute):
        node = node.value
        if node in mentions:
            return True
    return False


def _scheduler(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Attribute) and node.attr.value == "scheduler"


def _within(facts: Facts, node: cst.CSTNode, outer: cst.CSTNode) -> bool:
    return facts.script.start(outer) <= facts.script.start(node) and facts.script.end(node) <= facts.script.end(outer)
