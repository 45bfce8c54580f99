"""The composition map: what passes and pairs of them did where they were measured, read from stores of earlier runs."""

from __future__ import annotations

import itertools
import json
import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from diffopt.bench.outcome import Measured, outcome_from_json
from diffopt.ir.errors import DiffoptError
from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace, run
from diffopt.search.archive import ArchiveProposer
from diffopt.search.records import Candidate, Trial

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from diffopt.agents import Agent, AgentFor

Chain = tuple[str, ...]
"""A trace as the texts of its passes."""

GREY = 255.0
BEAM = 24


@dataclass(frozen=True)
class Row:
    """What one pass, or a pair, did: medians over the programs that differ by it alone.

    Args:
        passes: one, or two in order.
        count: how many such comparisons there are.
        speed: logarithm of the factor; of a pair, beyond what each does alone.
        distance: grey levels (of 255) further from the baseline's images; of a pair likewise.
    """

    passes: Chain
    count: int
    speed: float
    distance: float


@dataclass(frozen=True)
class CompositionMap:
    """Signed effects for one model, device and set of versions."""

    model: str
    device: str
    versions: str
    programs: int
    singles: tuple[Row, ...]
    pairs: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)


def composition_maps(stores: Sequence[Path]) -> tuple[CompositionMap, ...]:
    """Read stores and return a map for each (model, device, versions) in them.

    Raises:
        DiffoptError: a file is no store, or holds nothing that was measured.
    """
    found: dict[tuple[str, str, str], dict[Chain, tuple[float, float]]] = {}
    for store in stores:
        try:
            for manifest, trace, outcome in _measured(store):
                model = str((manifest.get("model") or {}).get("hash", ""))[:12] or "unknown"
                versions = " ".join(f"{k} {v}" for k, v in sorted((manifest.get("libraries") or {}).items()))
                key = (model, f"{manifest.get('target', '?')} {outcome.environment.get('cpu', '')}".strip(), versions)
                chain = tuple(str(one.spec(include_default=True)) for one in Trace.parse(trace)) if trace else ()
                values = found.setdefault(key, {(): (0.0, 0.0)})
                values[chain] = math.log(outcome.latency.ratio), GREY * 10 ** (-outcome.fidelity.psnr_median / 20)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            what = f"holds what is no measurement ({type(error).__name__}: {error})"
            raise DiffoptError(what, where=str(store), hint="take another store") from error
    if not found:
        raise DiffoptError("nothing was measured", where=", ".join(map(str, stores)))
    return tuple(CompositionMap(*key, len(values) - 1, *effects(values)) for key, values in found.items())


def effects(values: Mapping[Chain, tuple[float, float]]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Return what single passes and pairs did, largest first.

    Args:
        values: log speed-up and distance of each measured chain; the empty one is the baseline.
    """
    singles: dict[Chain, list[tuple[float, float]]] = {}
    pairs: dict[Chain, list[tuple[float, float]]] = {}
    for chain, (speed, distance) in values.items():
        for index, name in enumerate(chain):
            rest = values.get(chain[:index] + chain[index + 1 :])
            if rest is not None:
                singles.setdefault((name,), []).append((speed - rest[0], distance - rest[1]))
        for i, j in itertools.combinations(range(len(chain)), 2):
            without = [tuple(p for k, p in enumerate(chain) if k not in left) for left in ({i}, {j}, {i, j})]
            known = [values.get(part) for part in without]
            if all(value is not None for value in known):
                first, second, neither = (value or (0.0, 0.0) for value in known)
                pairs.setdefault((chain[i], chain[j]), []).append(
                    (speed - first[0] - second[0] + neither[0], distance - first[1] - second[1] + neither[1])
                )
    return _rows(singles), _rows(pairs)


def _rows(found: Mapping[Chain, Sequence[tuple[float, float]]]) -> tuple[Row, ...]:
    rows = [
        Row(names, len(seen), median(speed for speed, _ in seen), median(distance for _, distance in seen))
        for names, seen in found.items()
    ]
    return tuple(sorted(rows, key=lambda row: -abs(row.speed)))


def _measured(store: Path) -> Iterable[tuple[Mapping[str, Any], str, Measured]]:
    """Yield the measured trials of a store with the manifest of the run they belong to; the store is not locked."""
    if not store.is_file():
        raise DiffoptError("no such store", where=str(store), hint="it is OUT.run/store.sqlite of an earlier compile")
    query = (
        "SELECT r.manifest, c.trace, o.json FROM outcome o JOIN candidate c ON o.run_id = c.run_id AND"
        " o.candidate_id = c.id JOIN run r ON r.id = o.run_id WHERE o.status = 'measured'"
        " AND (r.id = 'search' OR r.id LIKE 'search@%')"
    )
    try:
        with closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)) as db:
            rows = db.execute(query).fetchall()
    except sqlite3.Error as error:
        raise DiffoptError(f"cannot be read as a store ({error})", where=str(store)) from None
    for manifest, trace, text in rows:
        outcome = outcome_from_json(json.loads(text))
        if isinstance(outcome, Measured):
            yield json.loads(manifest), str(trace), outcome


def archived(store: Path, target: str) -> tuple[Trial, ...]:
    """Return the trials of a store that were measured on the kind of device that `target` names, those of all its runs.

    Raises:
        DiffoptError: the store cannot be read.
    """
    kind = target.split(":")[0]
    found = [
        (trace, outcome)
        for manifest, trace, outcome in _measured(store)
        if str(manifest.get("target", "")).startswith(kind)
    ]
    return tuple(
        Trial(Candidate(place, trace, f"{place}", "archive"), outcome)
        for place, (trace, outcome) in enumerate(found, start=1)
    )


def with_prior(agent: AgentFor, store: Path, target: str) -> AgentFor:
    """Return what makes the agent of a run, with proposers of what earlier runs, of this pipeline or others, found.

    The best of their programs take turns with its own, and what the map of the first run expects comes last.

    Raises:
        DiffoptError: the store cannot be read, or nothing was measured.
    """
    found = composition_maps([store])[0]
    archive = ArchiveProposer(archived(store, target))

    def make(folder: Path, module: ModuleOp) -> Agent:
        made = agent(folder, module)
        return replace(made, proposers=[archive, *made.proposers, MapProposer(found)])

    return make


def predicted(found: CompositionMap, chain: Chain) -> tuple[float, float]:
    """Return the log speed-up and the distance that a chain should have: its passes' effects, and its pairs'."""
    rows = {row.passes: row for row in (*found.singles, *found.pairs)}
    parts = [(name,) for name in chain] + [(a, b) for a, b in itertools.combinations(chain, 2)]
    known = [rows[part] for part in parts if part in rows]
    return sum(row.speed for row in known), sum(row.distance for row in known)


@dataclass(frozen=True)
class MapProposer:
    """Proposes chains that the map expects to be fast and that were not measured together yet."""

    found: CompositionMap
    name: str = "composition-map"

    def propose(self, module: ModuleOp, history: Sequence[Trial], count: int) -> list[Trace]:
        """Return up to `count` legal chains, the fastest expected first; grown pass by pass from the best."""
        names = [row.passes[0] for row in self.found.singles if row.speed > 0]
        grown: dict[str, tuple[float, Trace]] = {}
        beam: list[Chain] = [()]
        for _ in range(3):
            longer = {(*chain[:at], name, *chain[at:]) for chain in beam for name in names if name not in chain
                      for at in range(len(chain) + 1)}  # fmt: skip
            legal = [(predicted(self.found, c)[0], c) for c in sorted(longer)]
            legal.sort(key=lambda entry: -entry[0])
            beam = []
            for speed, chain in legal:
                trace = Trace.parse(",".join(chain))
                if len(beam) < BEAM and not isinstance(run(trace, module), Refusal):
                    beam.append(chain)
                    grown[str(trace)] = (speed, trace)
        return [trace for _, trace in sorted(grown.values(), key=lambda entry: -entry[0])][:count]


def composition_lines(found: CompositionMap) -> list[str]:
    """Return a map as a table for people."""
    from diffopt.display import short

    lines = [f"model {found.model}, {found.device}, {found.programs} programs", found.versions]
    for title, rows in (("passes", found.singles), ("pairs, beyond what each does alone", found.pairs)):
        lines.append(f"{title}:" if rows else f"{title}: no two programs differ by one alone")
        lines += [
            f"  {math.exp(row.speed):7.3f}x {row.distance:+8.2f} grey levels  ({row.count})  {short(' + '.join(row.passes))}"
            for row in rows
        ]
    return lines
