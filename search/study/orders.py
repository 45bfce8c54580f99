"""How much order matters: `python -m diffopt.search.study.orders` writes orders-shapes.json.

For sets of passes: what share of their orders is legal, and to how many different programs the legal ones lead. And how
many of many generated candidates were illegal or led to a program seen before.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.device import environment
from diffopt.bench.models.shapes import SHAPES
from diffopt.ir.description import build_module
from diffopt.ir.source_directory import describe_directory
from diffopt.passes.base import DiffusionPass, Refusal
from diffopt.passes.pipeline import Trace, key
from diffopt.search.repair import repair
from diffopt.search.space import Legal, PassSpace, Space, Steps
from diffopt.search.study.synthetic import Synthetic
from diffopt.search.variation import fresh, vary

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results" / "orders-shapes.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Count orders and candidates, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.search.study.orders", description=__doc__)
    parser.add_argument("--most", type=int, default=4, help="passes in a set")
    parser.add_argument("--sets", type=int, default=120, help="sets of each size at most, drawn at random")
    parser.add_argument("--candidates", type=int, default=10000, help="of the built-in model, 60 ms each")
    parser.add_argument("--synthetic", type=int, default=10000, help="candidates of the synthetic problem")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    module = build_module(
        describe_directory(SHAPES.directory, steps=SHAPES.steps, guidance=SHAPES.guidance, name="shapes")
    )
    table: dict[str, Any] = {
        "generated": {},
        "command": "python -m diffopt.search.study.orders"
        f" --most {given.most} --sets {given.sets} --candidates {given.candidates} --synthetic {given.synthetic} --seed {given.seed}",
        "environment": environment(),
        "sizes": [
            counted(module, size, given.sets, np.random.default_rng([given.seed, size]))
            for size in range(2, given.most + 1)
        ],
    }

    def by_running(steps: Steps) -> str | None:
        found = key(Trace(steps), module)
        return None if isinstance(found, Refusal) else found

    def by_rules(steps: Steps) -> str | None:
        found = Synthetic(seed=1).check(steps)
        return found.key if isinstance(found, Legal) else None

    problems: tuple[tuple[str, Space, Callable[[Steps], str | None], int], ...] = (
        ("demo:shapes", PassSpace(module), by_running, given.candidates),
        ("synthetic", Synthetic(seed=1), by_rules, given.synthetic),
    )
    for name, space, again, count in problems:
        for found in generated(space, again, count, np.random.default_rng([given.seed, 0])):
            table["generated"][name] = found
            print(f"{name}: {found['candidates']}/{count}", file=sys.stderr, flush=True)
            given.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    for row in table["sizes"]:
        print(row)
    print(table["generated"])
    return 0


def counted(module: ModuleOp, size: int, most: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return, over sets of `size` passes, the share of legal orders and how many programs they lead to.

    Each pass stands with the first instance worth trying; sets of which no order is legal are counted apart.
    """
    space = PassSpace(module, memory=4000)
    passes = [found[0] for name in space.names if (found := space.instances(name, ()))]
    sets = [tuple(passes[i] for i in chosen) for chosen in combinations(range(len(passes)), size)]
    if len(sets) > most:
        sets = [sets[int(i)] for i in sorted(rng.choice(len(sets), most, replace=False))]
    legal_orders, impossible, several = 0, 0, 0
    leads: Counter[int] = Counter()
    for chosen in sets:
        keys = _keys(space, chosen)
        if not keys:
            impossible += 1
            continue
        legal_orders += sum(keys.values())
        leads[len(keys)] += 1
        several += len(keys) > 1
    possible = len(sets) - impossible
    return {
        "passes": size,
        "sets": len(sets),
        "no legal order": impossible,
        "legal share of the orders of the others": round(legal_orders / max(possible * math.factorial(size), 1), 4),
        "programs a set leads to": {str(count): leads[count] for count in sorted(leads)},
        "sets with several programs": several,
    }


def _keys(space: PassSpace, chosen: Sequence[DiffusionPass]) -> Counter[str]:
    found: Counter[str] = Counter()
    for order in permutations(chosen):
        verdict = space.check(tuple(order))
        if isinstance(verdict, Legal):
            found[verdict.key] += 1
    return found


def generated(
    space: Space, again: Callable[[Steps], str | None], count: int, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Generate candidates as the search does, and check each again from the start.

    Args:
        again: the key that a program leads to, found in another way; None where it is illegal.

    Yields the counts so far every 500 candidates, and at the end.

    What the search hands out is new and legal by construction; here is counted how much work that is, and whether it
    holds.
    """
    baseline = space.check(())
    seen = {baseline.key} if isinstance(baseline, Legal) else set()
    parents: list[Steps] = []
    drawn = refused = known = 0
    illegal = repeated = 0
    kept: set[str] = set()
    while len(kept) < count:
        drawn += 1
        varied, _ = vary(parents[-40:], space, rng) if drawn % 4 else (fresh(space, rng), "fresh")
        steps = repair(varied, space, rng) if varied else None
        verdict = space.check(steps) if steps else None
        if steps is None or not isinstance(verdict, Legal):
            refused += 1
            continue
        if verdict.key in seen:
            known += 1
            continue
        seen.add(verdict.key)
        parents.append(steps)
        found = again(steps)
        illegal += found is None
        repeated += found in kept
        kept.add(found or str(Trace(steps)))
        if len(kept) % 500 == 0 or len(kept) == count:
            yield {"candidates": len(kept), "drawn": drawn, "could not be mended": refused, "program known already": known,
                   "illegal": illegal, "repeated": repeated}  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
