"""Peers beside diffopt: `python -m diffopt.bench.peers [install|measure|page]`; without a word all three, what is done stays done."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffopt.bench import device
from diffopt.bench.models import builtin
from diffopt.bench.peers.environments import ENVIRONMENTS, install, versions_in
from diffopt.bench.peers.measuring import Measuring, Servers, entries
from diffopt.bench.peers.page import page
from diffopt.bench.peers.peer import HERE, peers
from diffopt.ir.errors import DiffoptError

RESULTS = Path(__file__).resolve().parents[1] / "results"
MODELS = ("demo:shapes", "demo:shapes-pixart")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 2 where it cannot be followed."""
    given = _parser().parse_args(arguments)
    try:
        return _run(given)
    except DiffoptError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m diffopt.bench.peers", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("all", "install", "measure", "page"), default="all")
    parser.add_argument("names", nargs="*", metavar="ENVIRONMENT", help=f"of {', '.join(ENVIRONMENTS)}; all by default")
    parser.add_argument("--work", type=Path, default=Path("out/peers"), help="environments, engines and images")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument(
        "--only", default="", help="regular expression: measure only programs whose `who: arm` it finds"
    )
    parser.add_argument("--stage", choices=("screen", "decide", "both"), default="both")
    parser.add_argument("--again", action="store_true", help="measure anew on held-out prompts and face to face")
    parser.add_argument("--minutes", type=float, default=None, help="begin no measurement after so many")
    parser.add_argument("--threads", type=int, default=None, help="of every program; all cores by default")
    parser.add_argument("--ours", type=Path, default=RESULTS, help="folder of demo-NAME-cpu.json, manifests of compile")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "peers-cpu.json")
    parser.add_argument("--page", type=Path, default=Path("docs/peers.md"))
    return parser


def _run(given: argparse.Namespace) -> int:
    home = given.work / "environments"
    if given.what in ("all", "install"):
        _install(given.names or list(ENVIRONMENTS), home)
    if given.what in ("all", "measure"):
        _measure(given, home)
    if given.what in ("all", "page"):
        if not given.out.exists():
            raise DiffoptError(
                "there are no results", where=str(given.out), hint="python -m diffopt.bench.peers measure"
            )
        given.page.write_text(page(json.loads(given.out.read_text()), peers()), encoding="utf-8")
    return 0


def _install(names: Sequence[str], home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name not in ENVIRONMENTS:
            raise DiffoptError("no such environment", where=name, hint=f"there are {', '.join(ENVIRONMENTS)}")
        failed = install(name, home)
        print(f"{name}: {failed or 'installed'}", file=sys.stderr, flush=True)


def _measure(given: argparse.Namespace, home: Path) -> None:
    found: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {"models": {}}
    found["environment"] = device.environment()
    found["threads"] = given.threads
    chosen = peers()
    until = time.monotonic() + (float("inf") if given.minutes is None else 60 * given.minutes)
    told = {
        name
        for name in (HERE, *{peer.environment for peer in chosen})
        if name == HERE or (home / name / "done").exists()
    }
    found["versions"] = found.get("versions", {}) | {name: versions_in(name, home) for name in sorted(told)}
    work = given.work.resolve()
    with Servers(home.resolve(), work / "servers", given.threads, os.environ) as servers:
        for name in given.models.split(","):
            model = builtin(name)
            if model is None:
                raise DiffoptError("no such model", where=name, hint=f"give some of {', '.join(MODELS)}")
            short = name.removeprefix("demo:")
            results = found["models"].setdefault(name, {})
            if given.again:
                for part in ("self_test", "finals", "direct"):
                    results.pop(part, None)
            with Measuring(
                model, [entry for entry in entries(model, chosen, given.ours / f"demo-{short}-cpu.json")
                        if re.search(given.only, entry.name)], results,
                work=work / short, servers=servers, threads=given.threads, until=until,
                keep=lambda: _keep(given.out, found), say=lambda text: print(text, file=sys.stderr, flush=True),
            ) as measuring:  # fmt: skip
                if given.stage in ("screen", "both"):
                    measuring.screen()
                if given.stage in ("decide", "both"):
                    measuring.decide()
    _keep(given.out, found)


def _keep(out: Path, found: dict[str, Any]) -> None:
    """Write the results; what failed without the paths of this machine."""
    for results in found["models"].values():
        rows = [*results.get("screen", {}).values(), *results.get("finals", {}).values()]
        rows += [race for races in results.get("direct", {}).values() for race in races.values()]
        for outcome in (row["outcome"] for row in rows if row["outcome"]["status"] == "failed"):
            outcome["message"] = re.sub(r"(/[\w.+-]+){2,}/", ".../", outcome["message"])[:1500]
            outcome["log"] = ""
    part = out.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1, default=str) + "\n", encoding="utf-8")
    part.replace(out)


if __name__ == "__main__":
    sys.exit(main())
