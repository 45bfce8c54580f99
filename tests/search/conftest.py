"""A synthetic problem with hidden interactions, and outcomes made of plain numbers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import ClassVar, Literal, Self

import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.outcome import Failed, Fidelity, Latency, Measured, Memory, Outcome
from diffopt.ir.description import ComponentDescription, PipelineDescription, build_module
from diffopt.passes.base import DiffusionPass, Family, Refusal, Tier
from diffopt.passes.pipeline import Trace
from diffopt.search.facts import trace_facts
from diffopt.search.records import Candidate, Trial
from diffopt.search.repair import repair
from diffopt.search.space import Legal, Refused, Steps
from diffopt.search.variation import fresh


@dataclass(frozen=True)
class Fake(DiffusionPass):
    family: ClassVar[Family] = Family.COMPILATION
    tier: ClassVar[Tier] = Tier.EXACT

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        raise NotImplementedError

    def refuse(self, module: ModuleOp) -> Refusal | None:
        raise NotImplementedError

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Fewer(Fake):
    name = "fewer"
    count: int = 20
    solver: Literal["one", "two", "three"] = "one"

    def check_options(self) -> None:
        self.require(1 <= self.count < 50, "count", "from 1 to 49")


@dataclass(frozen=True)
class Cache(Fake):
    name = "cache"
    interval: int = 2

    def check_options(self) -> None:
        self.require(2 <= self.interval <= 8, "interval", "from 2 to 8")


@dataclass(frozen=True)
class Window(Fake):
    name = "window"
    stop: float = 0.5

    def check_options(self) -> None:
        self.require(0 < self.stop < 1, "stop", "between 0 and 1")


@dataclass(frozen=True)
class Engine(Fake):
    name = "engine"
    backend: Literal["x", "y", "z"] = "x"
    half: bool = False


@dataclass(frozen=True)
class Bits(Fake):
    name = "bits"
    width: Literal["w8", "w4"] = "w8"


@dataclass(frozen=True)
class Tokens(Fake):
    name = "tokens"
    share: float = 0.5

    def check_options(self) -> None:
        self.require(0 < self.share < 1, "share", "between 0 and 1")


@dataclass(frozen=True)
class Fuse(Fake):
    name = "fuse"


@dataclass(frozen=True)
class Layout(Fake):
    name = "layout"


@dataclass(frozen=True)
class Graph(Fake):
    name = "graph"


@dataclass(frozen=True)
class Tile(Fake):
    name = "tile"
    size: int = 32


GRID: dict[str, tuple[type[Fake], dict[str, tuple[object, ...]]]] = {
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
EXCLUDED = (("engine", "graph"), ("cache", "tokens"))
BEFORE = (("bits", "engine"), ("fewer", "cache"))
ORDER_MATTERS = (("fuse", "bits"), ("window", "cache"), ("layout", "engine"))


@dataclass
class Synthetic:
    """Ten passes with conflicts, order rules, typed options and random interactions that only measuring tells."""

    seed: int = 0
    names: tuple[str, ...] = tuple(GRID)
    broken: str = ""
    checked: dict[Steps, Legal | Refused] = field(default_factory=dict)
    hidden: dict[tuple[str, ...], tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        for left in GRID:
            for right in GRID:
                self.hidden[left, right] = (rng.normal(0, 0.08), rng.normal(0, 0.15))
            self.hidden[(left,)] = (rng.normal(0, 0.1), rng.normal(0, 0.3))

    def instances(self, name: str, before: Steps) -> Steps:
        made, grid = GRID[name]
        options = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
        return tuple(s for o in options if self._refused((*before, s := made(**o)), len(before)) is None)

    def check(self, steps: Steps) -> Legal | Refused:
        if steps not in self.checked:
            self.checked[steps] = self._check(steps)
        return self.checked[steps]

    def _check(self, steps: Steps) -> Legal | Refused:
        for at in range(len(steps)):
            refusal = self._refused(steps[: at + 1], at)
            if refusal is not None:
                return Refused(refusal, at)
        names = [s.name for s in steps]
        orders = [f"{a}<{b}" for a, b in ORDER_MATTERS if a in names and b in names and names.index(a) < names.index(b)]
        text = "|".join(sorted(str(Trace((s,))) for s in steps) + orders)
        facts = {**trace_facts(steps), "steps_kept": float("fewer" not in names)}
        return Legal(hashlib.sha256(text.encode()).hexdigest()[:16], {k: v for k, v in facts.items() if "<" not in k})

    def parse(self, text: str) -> Trace:
        steps = []
        for part in text.split(",") if text else []:
            name, _, rest = part.partition("{")
            made = GRID[name][0]
            values: dict[str, object] = {}
            for pair in rest.rstrip("}").split():
                option, _, value = pair.partition("=")
                kind = type(getattr(made(), option))
                values[option] = value == "true" if kind is bool else kind(value.strip('"'))
            steps.append(made(**values))
        return Trace(tuple(steps))

    def truth(self, steps: Steps) -> tuple[float, float, float]:
        """Return latency ratio, PSNR in dB and memory ratio without noise."""
        by_name = {s.name: s for s in steps}
        calls, cost, error, memory = 50.0, 0.0, 1e-9, 0.0
        match by_name.get("fewer"):
            case Fewer(count=count, solver=solver):
                order = {"one": 1.0, "two": 1.6, "three": 1.9}[solver]
                calls, error = float(count), error + 0.02 * {"one": 1, "two": 2, "three": 5}[solver] * count**-order
        match by_name.get("cache"):
            case Cache(interval=interval):
                error += 2e-5 * (interval - 1) ** 2 * (50 / calls)
                calls = calls / interval + 0.3 * (calls - calls / interval)
        match by_name.get("window"):
            case Window(stop=stop):
                cost, error = cost + math.log(0.5 + 0.5 * stop), error + 3e-4 * (1 - stop) ** 2
        match by_name.get("engine"):
            case Engine(backend=backend, half=half):
                cost -= {"x": 0.9, "y": 0.6, "z": 0.4}[backend] + (0.45 if half else 0)
                error, memory = error + (1e-6 if half else 1e-8), memory + {"x": 0.3, "y": 0.1, "z": 0.0}[backend]
        match by_name.get("bits"):
            case Bits(width=width):
                cost, memory = cost - 0.1, memory - {"w8": 0.3, "w4": 0.5}[width]
                error += {"w8": 5e-6, "w4": 3e-4}[width]
        match by_name.get("tokens"):
            case Tokens(share=share):
                cost, error = cost - 0.3 * (1 - share), error + 1e-4 * (1 - share)
        match by_name.get("tile"):
            case Tile(size=size):
                cost -= 0.1 - 0.05 * abs(math.log2(size / 48))
        cost -= 0.15 * ("fuse" in by_name) + 0.08 * ("layout" in by_name) + 0.4 * ("graph" in by_name)
        names = [s.name for s in steps]
        loss = 0.0
        for at, name in enumerate(names):
            mine = self.hidden[(name,)]
            cost, loss = cost + mine[0], loss + mine[1]
            for later in names[at + 1 :]:
                pair = (name, later) if (name, later) in ORDER_MATTERS else tuple(sorted((name, later)))
                cost, loss = cost + self.hidden[pair][0], loss + self.hidden[pair][1]
        latency = 0.02 + 0.98 * calls / 50 * math.exp(cost)
        return 1 / latency, -10 * math.log10(error * math.exp(loss)), math.exp(memory)

    def evaluate(self, candidate: Candidate) -> Outcome:
        """Measure with 3 % noise that depends on the candidate alone."""
        if self.broken and self.broken in candidate.trace:
            return Failed("crash", "the worker died", "Segmentation fault")
        ratio, psnr, memory = self.truth(self.parse(candidate.trace).passes)
        rng = np.random.default_rng([self.seed, int(candidate.key[:8], 16)])
        return measured(ratio * math.exp(rng.normal(0, 0.03)), psnr + rng.normal(0, 0.2), memory)

    def _refused(self, steps: Steps, at: int) -> Refusal | None:
        name, before = steps[at].name, {s.name for s in steps[:at]}
        if name in before:
            return Refusal("there already", name, "once")
        for pair in EXCLUDED:
            if name in pair and before & (set(pair) - {name}):
                return Refusal("excluded", name, "exclusion")
        for earlier, later in BEFORE:
            if name == earlier and later in before:
                return Refusal(f"{earlier} after {later}", name, "order")
        return None


def measured(
    ratio: float, psnr: float = 60.0, memory: float = 1.0, *, spread: float = 0.03, tier: str = ""
) -> Measured:
    """Make an outcome: one second of baseline, 100 MiB of memory."""
    grade = tier or ("near" if psnr >= 35 else "traded" if psnr >= 25 else "rejected")
    return Measured(
        latency=Latency(ratio, ratio * math.exp(-spread), ratio * math.exp(spread), 5, (1.0,) * 5, (1 / ratio,) * 5),
        fidelity=Fidelity(psnr, psnr - 3, psnr - 6, 0.99, None, None, None, None, 8, (("a red circle", 1, psnr - 6),)),
        memory=Memory(int(memory * 2**20 * 100), 2**20 * 100),
        build_s=1.0,
        load_s=1.0,
        first_call_s=0.1,
        witnesses=(),
        tier=grade,
    )


@pytest.fixture
def outcome() -> Callable[..., Measured]:
    return measured


@pytest.fixture
def synthetic() -> Callable[..., Synthetic]:
    return Synthetic


@pytest.fixture
def trial() -> Callable[..., Trial]:
    def make(number: int, outcome: Outcome, *, kept: bool = False, trace: str = "fuse") -> Trial:
        return Trial(Candidate(number, trace, f"key{number}", "test", {"steps_kept": float(kept)}), outcome)

    return make


@pytest.fixture(scope="session")
def module() -> ModuleOp:
    """Build a small Stable Diffusion pipeline from its description; no weights are needed to search it."""
    parts = (
        ComponentDescription("text_encoder", "transformers.CLIPTextModel", {"hidden_size": 128}),
        ComponentDescription("tokenizer", "transformers.CLIPTokenizer", {}),
        ComponentDescription("unet", "diffusers.UNet2DConditionModel", {"up_block_types": ["a", "b", "c"]}),
        ComponentDescription("scheduler", "diffusers.DDIMScheduler", {"prediction_type": "v_prediction"}),
        ComponentDescription("vae", "diffusers.AutoencoderKL", {}),
    )
    description = PipelineDescription(
        "small", "diffusers.StableDiffusionPipeline", "some/model", parts, steps=50, guidance=2.0, height=64, width=64
    )
    return build_module(description)


class Experts:
    """Proposes what somebody who knows the field would try first on the synthetic problem."""

    name = "experts"
    texts = (
        'engine{backend="x" half=true}',
        'fewer{count=10 solver="two"},engine{backend="x" half=true}',
        'fewer{count=4 solver="two"},engine{backend="x" half=true}',
        'fuse,fewer{count=6 solver="three"},window{stop=0.6},engine{backend="x" half=true}',
        'cache{interval=3},fuse,engine{backend="x" half=true}',
        'engine{backend="x" half=true},bits{width="w8"}',
    )

    def __init__(self, problem: Synthetic) -> None:
        self.problem = problem
        self.calls = 0

    def propose(self, module: ModuleOp, history: Sequence[Trial], count: int) -> list[Trace]:
        self.calls += 1
        return [self.problem.parse(text) for text in self.texts][:count]


@pytest.fixture
def experts() -> Callable[[Synthetic], Experts]:
    return Experts


@pytest.fixture
def random_programs() -> Callable[..., list[str]]:
    """Return random legal programs, no two the same: the baseline any search must beat."""

    def draw(problem: Synthetic, count: int, seed: int) -> list[str]:
        rng = np.random.default_rng(seed)
        found: dict[str, str] = {}
        while len(found) < count:
            varied = fresh(problem, rng)
            steps = repair(varied, problem, rng) if varied else None
            if steps is not None and isinstance(legal := problem.check(steps), Legal):
                found.setdefault(legal.key, str(Trace(steps)))
        return list(found.values())

    return draw
