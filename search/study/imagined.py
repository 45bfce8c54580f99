"""Ten passes that exist on paper only: the parts of the synthetic problem."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Literal, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.passes.base import DiffusionPass, Family, Refusal, Tier


@dataclass(frozen=True)
class Imagined(DiffusionPass):
    """A pass that is only ever weighed, never applied."""

    family: ClassVar[Family] = Family.COMPILATION
    tier: ClassVar[Tier] = Tier.EXACT

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        """There is no module."""
        raise NotImplementedError

    def refuse(self, module: ModuleOp) -> Refusal | None:
        """There is no module."""
        raise NotImplementedError

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """There is no module."""
        raise NotImplementedError


@dataclass(frozen=True)
class Fewer(Imagined):
    """Fewer steps by one of three solvers."""

    name = "fewer"
    tier = Tier.TRADED
    count: int = 20
    solver: Literal["one", "two", "three"] = "one"

    def check_options(self) -> None:
        """Check the range of the count."""
        self.require(1 <= self.count < 50, "count", "from 1 to 49")


@dataclass(frozen=True)
class Cache(Imagined):
    """A feature cache."""

    name = "cache"
    tier = Tier.TRADED
    interval: int = 2

    def check_options(self) -> None:
        """Check the range of the interval."""
        self.require(2 <= self.interval <= 8, "interval", "from 2 to 8")


@dataclass(frozen=True)
class Window(Imagined):
    """Guidance for a share of the steps."""

    name = "window"
    tier = Tier.TRADED
    stop: float = 0.5

    def check_options(self) -> None:
        """Check the range of the share."""
        self.require(0 < self.stop < 1, "stop", "between 0 and 1")


@dataclass(frozen=True)
class Engine(Imagined):
    """One of three engines, in half precision or not."""

    name = "engine"
    tier = Tier.NEAR
    backend: Literal["x", "y", "z"] = "x"
    half: bool = False


@dataclass(frozen=True)
class Bits(Imagined):
    """Quantised weights."""

    name = "bits"
    tier = Tier.NEAR
    width: Literal["w8", "w4"] = "w8"


@dataclass(frozen=True)
class Tokens(Imagined):
    """Merged tokens."""

    name = "tokens"
    tier = Tier.TRADED
    share: float = 0.5

    def check_options(self) -> None:
        """Check the range of the share."""
        self.require(0 < self.share < 1, "share", "between 0 and 1")


@dataclass(frozen=True)
class Fuse(Imagined):
    """Fused projections."""

    name = "fuse"


@dataclass(frozen=True)
class Layout(Imagined):
    """Another layout in memory."""

    name = "layout"


@dataclass(frozen=True)
class Graph(Imagined):
    """A captured graph."""

    name = "graph"


@dataclass(frozen=True)
class Tile(Imagined):
    """Tiled decoding."""

    name = "tile"
    size: int = 32


GRID: dict[str, tuple[type[Imagined], dict[str, tuple[object, ...]]]] = {
    "fewer": (Fewer, {"count": (2, 3, 4, 6, 8, 10, 15, 20, 25), "solver": ("one", "two", "three")}),
    "cache": (Cache, {"interval": (2, 3, 5)}),
    "window": (Window, {"stop": (0.2, 0.4, 0.6, 0.8)}),
    "engine": (Engine, {"backend": ("x", "y", "z"), "half": (False, True)}),
    "bits": (Bits, {"width": ("w8", "w4")}),
    "tokens": (Tokens, {"share": (0.25, 0.5, 0.75)}),
    "fuse": (Fuse, {}),
    "layout": (Layout, {}),
    "graph": (Graph, {}),
    "tile": (Tile, {"size": (16, 32, 64)}),
}
"""All values that an option may have on the synthetic problem: its programs can be counted, so its best are known."""

EXCLUDED = (("engine", "graph"), ("cache", "tokens"))
BEFORE = (("bits", "engine"), ("fewer", "cache"))
ORDER_MATTERS = (("fuse", "bits"), ("window", "cache"), ("layout", "engine"))

INSTANCES: dict[str, tuple[Imagined, ...]] = {
    name: tuple(made(**dict(zip(grid, values, strict=True))) for values in product(*grid.values()))
    for name, (made, grid) in GRID.items()
}
