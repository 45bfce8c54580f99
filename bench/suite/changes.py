"""What an answer changes of its pipeline beside the methods that are read: data types of parts, functions, the running call."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

DTYPES = {
    "half": "float16", "float16": "float16", "bfloat16": "bfloat16", "float": "float32", "float32": "float32",
    "double": "float64", "float64": "float64",
}  # fmt: skip
"""Names of data types, and methods of modules that change to them."""

RUNNING = ("callback", "callback_on_step_end")
"""Arguments of a call by which code changes the call as it runs."""


INSIDE = frozenset({
    "register_forward_hook", "register_forward_pre_hook", "register_module", "add_module", "set_submodule",
    "__setattr__", "__delattr__", "methodcaller", "attrgetter",
})  # fmt: skip
"""Functions by which code changes what a part does, without a line that says what."""

OWN_PARTS = frozenset({
    "scheduler", "safety_checker", "feature_extractor", "image_processor", "vae", "unet", "transformer", "controlnet",
    "text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3",
})  # fmt: skip
"""Attributes of a pipeline that its users set."""


@dataclass(frozen=True)
class Changes:
    """What was found.

    Args:
        dtype: that the whole pipeline was changed to last; empty where it was not.
        parts: changes of a part's data type, as written, with the type.
        patches: what else is changed, each in a sentence.
    """

    dtype: str = ""
    parts: tuple[tuple[str, str], ...] = ()
    patches: tuple[str, ...] = ()

    def against(self, dtype: str) -> list[str]:
        """Say what of this changes a pipeline that is of a data type, and of which nothing else was to be changed."""
        kept = self.dtype or dtype
        other = [
            f"`{text}` makes a part {found}, the pipeline is {kept}" for text, found in self.parts if found != kept
        ]
        return [*other, *self.patches]


def changes_of(tree: ast.Module) -> Changes:
    """Return what a script changes of its pipeline."""
    pipes = _pipes(tree)
    whole: list[tuple[int, str]] = []
    parts: list[tuple[str, str]] = []
    for call, owner, dtype in _casts(tree):
        if not _names(owner) & pipes or _of_images(owner):
            continue
        if isinstance(owner, ast.Name) and owner.id in _direct(tree):
            whole.append((call.lineno, dtype))
        else:
            parts.append((ast.unparse(call), dtype))
    parts += [(ast.unparse(call.func), dtype) for call, dtype in _loaded_parts(tree)]
    dtype = max(whole, default=(0, ""))[1]
    patches = {*_stores(tree, pipes), *_callbacks(tree), *_roundabout(tree, pipes)}
    return Changes(dtype, tuple(parts), tuple(sorted(patches)))


def _casts(tree: ast.Module) -> Iterator[tuple[ast.Call, ast.expr, str]]:
    """Yield calls that change a data type: what is changed, and to what."""
    named = _named_dtypes(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in DTYPES and not node.args and not node.keywords:
            yield node, _unchained(node.func.value), DTYPES[node.func.attr]
        elif node.func.attr in ("to", "type"):
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            owner = _unchained(node.func.value)
            yield from ((node, owner, dtype) for value in given if (dtype := _dtype_of(value, named)))


def _named_dtypes(tree: ast.Module) -> dict[str, str]:
    """Return the names that data types are bound to."""
    return {
        target.id: dtype
        for target, value in _bindings(tree)
        if isinstance(target, ast.Name) and (dtype := _dtype_of(value, {}))
    }


def _dtype_of(value: ast.expr, named: Mapping[str, str]) -> str:
    """Return the data type that an expression stands for: `torch.half`, a name of it, `getattr(torch, "half")`."""
    if isinstance(value, ast.Attribute):
        return DTYPES.get(value.attr, "")
    if isinstance(value, ast.Name):
        return named.get(value.id, DTYPES.get(value.id, ""))
    words = value.args if isinstance(value, ast.Call) and ast.unparse(value.func) == "getattr" else []
    return next((DTYPES[w.value] for w in words if isinstance(w, ast.Constant) and w.value in DTYPES), "")


def _roundabout(tree: ast.Module, pipes: set[str]) -> Iterator[str]:
    """Yield what changes a part by way of something else: hooks, functions of a class, methods by their names."""
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in INSIDE:
            yield f"`{ast.unparse(node)}` changes what a part does"
        elif isinstance(node, ast.Attribute) and node.attr in ("autocast", "set_default_dtype"):
            yield f"`{ast.unparse(node)}` changes data types as it runs"
        elif isinstance(node, ast.Attribute) and node not in called and isinstance(node.ctx, ast.Load):
            if node.attr in DTYPES and ast.unparse(node.value) not in _LIBRARIES:
                yield f"`{ast.unparse(node)}` is passed on, and what it changes cannot be read"
        elif isinstance(node, ast.Call) and any(_names(value) & pipes for value in node.args):
            if isinstance(node.func, ast.Attribute) and (node.func.attr in DTYPES or _is_of_modules(node.func)):
                yield f"`{ast.unparse(node)}` changes a part"
            elif ast.unparse(node.func) == "getattr" and not _is_plain_name(node.args[1:2]):
                yield f"`{ast.unparse(node)}` reads what cannot be known without running"


_LIBRARIES = ("torch", "numpy", "np")


def _is_of_modules(function: ast.Attribute) -> bool:
    return ast.unparse(function.value) in ("torch.nn.Module", "nn.Module", "Module")


def _is_plain_name(values: list[ast.expr]) -> bool:
    """Tell whether a name is written out, and is of no method that changes anything."""
    names = [value.value for value in values if isinstance(value, ast.Constant)]
    return len(names) == 1 and names[0] not in {*DTYPES, *INSIDE, "to", "type", "apply"}


def _unchained(owner: ast.expr) -> ast.expr:
    """Return what `.to(device)` and the like return: their own owner."""
    while isinstance(owner, ast.Call) and isinstance(owner.func, ast.Attribute) and owner.func.attr in ("to", "eval"):
        owner = owner.func.value
    return owner


def _loaded_parts(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = ast.unparse(node.func.value).rpartition(".")[2]
        if node.func.attr != "from_pretrained" or "Pipeline" in owner or owner.endswith("Scheduler"):
            continue
        for keyword in node.keywords:
            name = ast.unparse(keyword.value).rpartition(".")[2]
            if keyword.arg in ("dtype", "torch_dtype") and name in DTYPES:
                yield node, DTYPES[name]


def _stores(tree: ast.Module, pipes: set[str]) -> Iterator[str]:
    """Yield what is put in the place of a part's own, or of something that is not for others."""
    direct = _direct(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute | ast.Subscript) or isinstance(node.ctx, ast.Load):
            continue
        if not _names(node) & pipes or _of_images(node):
            continue
        deep = not isinstance(node.value, ast.Name)
        if isinstance(node, ast.Subscript):
            own = not deep
        else:
            own = not deep and not node.attr.startswith("_") and "guidance" not in node.attr
            own = own and (node.attr in OWN_PARTS or _root_name(node) in direct)
        if not own or isinstance(node.ctx, ast.Del):
            yield f"`{ast.unparse(node)}` is replaced"


def _root_name(node: ast.Attribute) -> str:
    return node.value.id if isinstance(node.value, ast.Name) else ""


def _callbacks(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in RUNNING and not _is_none(node.value):
            yield f"`{node.arg}` is given, by which the call is changed as it runs"


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _direct(tree: ast.Module) -> set[str]:
    """Return the names of the pipeline itself: what a loader returned, and the first argument of `generate`."""
    found = {"pipe"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "generate" and node.args.args:
            found.add(node.args.args[0].arg)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _loads(node.value):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def _loads(call: ast.Call) -> bool:
    text = ast.unparse(call.func)
    return text.endswith(".from_pretrained") and "Pipeline" in text


def _pipes(tree: ast.Module) -> set[str]:
    """Return the names that hold the pipeline or a part of it, by following what is bound to what."""
    found = _direct(tree)
    while True:
        more = {
            name.id
            for target, value in _bindings(tree)
            if _names(value) & found and not _of_images(value) and not _is_call_of(value, found)
            for name in ast.walk(target)
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
        }
        if more <= found:
            return found
        found |= more


def _passed(call: ast.Call, functions: Mapping[str, ast.FunctionDef]) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield the parameters of the script's own functions with what they are given; of a lambda, with all there is."""
    owner = call.func.value if isinstance(call.func, ast.Attribute) else call.func
    for inner in (call.func, *call.args):
        if isinstance(inner, ast.Lambda):
            for parameter in inner.args.args:
                yield from ((ast.Name(parameter.arg, ast.Store()), value) for value in (owner, *call.args))
    if isinstance(call.func, ast.Name) and call.func.id in functions:
        own = [parameter.arg for parameter in functions[call.func.id].args.args]
        given = [*zip(own, call.args, strict=False), *((k.arg, k.value) for k in call.keywords if k.arg)]
        yield from ((ast.Name(name, ast.Store()), value) for name, value in given)


def _bindings(tree: ast.Module) -> Iterator[tuple[ast.expr, ast.expr]]:
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            yield from ((target, node.value) for target in node.targets)
        elif isinstance(node, ast.NamedExpr | ast.AnnAssign):
            yield node.target, node.value or node.target
        elif isinstance(node, ast.Call):
            yield from _passed(node, functions)
        elif isinstance(node, ast.For | ast.comprehension):
            yield node.target, node.iter


def _is_call_of(value: ast.expr, pipes: set[str]) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in pipes


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _of_images(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Attribute) and part.attr == "images" for part in ast.walk(node))
