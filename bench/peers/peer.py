"""What a peer is: a module with a PEER and a `load`; its own text is the program that is measured.

The module runs in the peer's environment. diffopt can be imported there, but what it needs is not installed: the module
may import only this file, `calling` and what its environment holds, and the latter inside functions.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from diffopt.bench.peers import recipes

Kind = Literal["packaged", "by hand"]
HERE = "diffopt's"
"""The name of the environment that `make setup` makes."""


@dataclass(frozen=True)
class Peer:
    """A package or recipe, and how it is run.

    Args:
        name: for people.
        kind: `packaged` is what a package or its documentation offers, `by hand` what one writes oneself with an engine.
        source: where it comes from. licence: of the package.
        arms: options of `load` by the arm's name.
        environment: a name in `environments.ENVIRONMENTS`, or HERE.
        models: which built-in models it is tried on; all if empty.
        note: what one has to know to read its figures.
        text: of its module.
    """

    name: str
    kind: Kind
    source: str
    licence: str
    arms: Mapping[str, Mapping[str, Any]]
    environment: str = HERE
    models: tuple[str, ...] = ()
    note: str = ""
    text: str = field(default="", compare=False, repr=False)

    def program(self, arm: str, call: Mapping[str, Any]) -> str:
        """Return the text of the pipeline.py of one arm.

        call: arguments of the baseline's call: steps, guidance, size.
        """
        bound = f"functools.partial(load, call={dict(call)!r}, **{dict(self.arms[arm])!r})"
        return f"{self.text}\n\nimport functools  # noqa: E402\n\nload = {bound}\n"


def peers() -> tuple[Peer, ...]:
    """Return every peer, in the order of their files' names."""
    names = sorted(entry.name for entry in pkgutil.iter_modules(recipes.__path__))
    modules = [importlib.import_module(f"{recipes.__name__}.{name}") for name in names]
    return tuple(replace(module.PEER, text=inspect.getsource(module)) for module in modules)
