"""Generate the tasks: the paper's shares, filled by a seed; the same seed gives the same tasks, byte for byte."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache

from diffopt.bench.suite import shares
from diffopt.bench.suite.families import FAMILIES
from diffopt.bench.suite.task import FACTORS, METHODS, VERSION, Method, Metric, Target, Task
from diffopt.bench.suite.wording import worded
from diffopt.bench.suite.writing import plain_script

PUBLIC_SEED = 0
SWAPS = 4000
GATES = (0.4, 0.5, 0.6)
METRICS: Mapping[int, Metric] = {4: "speedup", 5: "latency"}


@cache
def tasks(seed: int = PUBLIC_SEED) -> tuple[Task, ...]:
    """Return the 604 tasks of a seed: 0 gives the public ones, any other a held-out part with the same shares."""
    found = [*_named(1, seed), *_named(2, seed), *_named(3, seed), *_aimed(4, seed), *_aimed(5, seed)]
    return tuple(found)


def _named(level: int, seed: int) -> list[Task]:
    """Make the tasks of a level that names all it wants."""
    rng = random.Random(f"diffbench {VERSION} {seed} {level}")
    families = [family for family, count in shares.FAMILIES[level].items() for _ in range(count)]
    rng.shuffle(families)
    names = _methods(level, families, rng)
    samplers = _samplers(level, names, rng)
    made = []
    for index, family in enumerate(families):
        fast = "fast-sampler" in names[index]
        steps = 50 if fast else rng.choice((20, 30, 50) if level == 1 else (30, 50))
        run = rng.choice((15, 20, 25)) if fast else steps
        methods = tuple(_method(name, samplers[index], run, rng) for name in METHODS if name in names[index])
        made.append(_task(level, index, seed, family, "" if fast else samplers[index], steps, methods, None, rng))
    return made


def _aimed(level: int, seed: int) -> list[Task]:
    """Make the tasks of a level that asks for a speed: each baseline at three difficulties."""
    rng = random.Random(f"diffbench {VERSION} {seed} {level}")
    families = [family for family, count in shares.BASELINES.items() for _ in range(count)]
    rng.shuffle(families)
    samplers = [sampler for sampler, count in shares.SAMPLERS[level].items() for _ in range(count)]
    rng.shuffle(samplers)
    allowed: list[set[str]] = [set() for _ in families]
    for name, count in shares.METHODS[level].items():
        for index in rng.sample([i for i, family in enumerate(families) if name in _applicable(family)], count):
            allowed[index].add(name)
    made: list[Task] = []
    for index, family in enumerate(families):
        methods = tuple(Method(name) for name in METHODS if name in allowed[index])
        for difficulty in FACTORS:
            target = Target(METRICS[level], difficulty)
            made.append(_task(level, len(made), seed, family, samplers[index], 50, methods, target, rng))
    return made


def _task(
    level: int,
    index: int,
    seed: int,
    family: str,
    sampler: str,
    steps: int,
    methods: tuple[Method, ...],
    target: Target | None,
    rng: random.Random,
) -> Task:
    name = f"L{level}-{index + 1:03d}"
    prompt = worded(FAMILIES[family], level, sampler, steps, methods, target, rng)
    reference = plain_script(FAMILIES[family], sampler="", steps=50)
    identity = name if seed == PUBLIC_SEED else f"{seed}-{name}"
    return Task(identity, level, family, sampler, steps, methods, target, prompt, reference)


def _applicable(family: str) -> tuple[str, ...]:
    """Return the methods that make sense for a family: two are for UNets, and DiT has no cross-attention."""
    if FAMILIES[family].kind == "unet":
        return tuple(METHODS)
    return ("fast-sampler", "half") if family == "dit" else ("fast-sampler", "tgate", "half")


def _methods(level: int, families: Sequence[str], rng: random.Random) -> list[set[str]]:
    """Give each task its methods, so that every method is named as often as its share says."""
    if level == 1:
        return [set() for _ in families]
    sizes = [1] * len(families)
    if level == 3:
        sizes = [size for size, count in shares.SIZES.items() for _ in range(count)]
        rng.shuffle(sizes)
        _fit_sizes(sizes, families)
    left = Counter(shares.METHODS[level])
    chosen: list[set[str]] = [set() for _ in families]
    for index in sorted(range(len(families)), key=lambda i: (len(_applicable(families[i])), -sizes[i], i)):
        by_need = sorted(_applicable(families[index]), key=lambda name: -left[name])
        chosen[index] = set(by_need[: sizes[index]])
        left.subtract(chosen[index])
    if any(left.values()):
        raise AssertionError(f"the shares of level {level} cannot be met: {dict(left)}")
    _mix(chosen, families, rng)
    return chosen


def _fit_sizes(sizes: list[int], families: Sequence[str]) -> None:
    """Move large combinations to families that have so many methods."""
    roomy = [i for i, family in enumerate(families) if FAMILIES[family].kind == "unet" and sizes[i] == 2]
    for index, family in enumerate(families):
        if sizes[index] > len(_applicable(family)):
            other = roomy.pop()
            sizes[index], sizes[other] = sizes[other], sizes[index]


def _mix(chosen: list[set[str]], families: Sequence[str], rng: random.Random) -> None:
    """Exchange methods between tasks at random; counts stay as they are."""
    for _ in range(SWAPS):
        one, other = rng.sample(range(len(chosen)), 2)
        give = sorted((chosen[one] - chosen[other]) & set(_applicable(families[other])))
        take = sorted((chosen[other] - chosen[one]) & set(_applicable(families[one])))
        if give and take:
            mine, theirs = rng.choice(give), rng.choice(take)
            chosen[one] = chosen[one] - {mine} | {theirs}
            chosen[other] = chosen[other] - {theirs} | {mine}


def _samplers(level: int, names: Sequence[set[str]], rng: random.Random) -> list[str]:
    """Give tasks their samplers: the fast ones where a task asks for one, DDIM elsewhere (any, in level 1)."""
    given = shares.SAMPLERS[level]
    fast = [index for index, chosen in enumerate(names) if "fast-sampler" in chosen]
    plain = [index for index in range(len(names)) if index not in set(fast)]
    found = [""] * len(names)
    pool = [s for s, count in given.items() for _ in range(count) if s != "ddim"]
    rng.shuffle(pool)
    if not fast:
        pool += ["ddim"] * given["ddim"]
        fast = rng.sample(plain, len(pool))
    else:
        for index in rng.sample(plain, given["ddim"]):
            found[index] = "ddim"
    for index, sampler in zip(fast, pool, strict=True):
        found[index] = sampler
    return found


def _method(name: str, sampler: str, steps: int, rng: random.Random) -> Method:
    """Draw the parameters of a method for a pipeline of so many steps."""
    match name:
        case "fast-sampler":
            return Method(name, {"sampler": sampler, "steps": steps})
        case "deepcache":
            return Method(name, {"interval": rng.choice((2, 3) if steps < 30 else (2, 3, 5))})
        case "tome":
            return Method(name, {"ratio": rng.choice((0.3, 0.5))})
        case "tgate":
            return Method(name, {"gate_step": round(rng.choice(GATES) * steps)})
        case _:
            return Method(name, {"dtype": "bfloat16"})
