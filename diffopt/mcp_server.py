"""An MCP server over standard input and output: any agent lifts, applies and measures, with the same guarantees."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.ir.errors import DiffoptError

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

INSTRUCTIONS = """\
diffopt optimizes diffusion pipelines. Ask `passes` for what may be done to a source and how a trace is written, `apply`
to see whether an order is legal, and `measure` for the only figures that count: the emitted code, run against the
baseline in processes of its own. Nothing of a source is run by `lift`, `passes` and `apply`."""


def lift(source: str, settings: dict[str, str] | None = None) -> str:
    """Return the intermediate representation of a script, model directory, IR text, or demo:shapes; runs nothing."""
    from diffopt.ir.identity import print_module
    from diffopt.sources import lift as lifted

    return _said(lambda: print_module(lifted(source, settings or {}).module))


def passes(source: str = "demo:shapes", settings: dict[str, str] | None = None) -> str:
    """Return the passes with what is legal on a source, how traces are written, and the schema of plans, as JSON."""
    from diffopt.llm.catalogue import tool_description
    from diffopt.sources import lift as lifted

    return _said(lambda: tool_description(lifted(source, settings or {}).module))


def apply(source: str, trace: str, settings: dict[str, str] | None = None) -> str:
    """Return the representation that a trace leads to, or the rule it breaks; runs nothing."""
    from diffopt.ir.identity import print_module
    from diffopt.passes.pipeline import Trace, applied
    from diffopt.sources import lift as lifted

    return _said(lambda: print_module(applied(Trace.parse(trace), lifted(source, settings or {}).module)))


def measure(
    source: str,
    trace: str,
    out: str,
    tier: str = "traded",
    prompts: str | None = None,
    settings: dict[str, str] | None = None,
) -> str:
    """Run a trace's emitted code against the baseline, write the artifact to the folder `out`, and return figures as JSON.

    Takes minutes. `tier` is the weakest that will do: exact, near or traded. An `out` that exists is an error.
    """
    from diffopt.api import Goal, compile

    def made() -> str:
        artifact = compile(
            source, out, goal=Goal(tier), passes=trace, prompts=prompts, settings=settings, controls=False
        )
        if artifact is None:
            return json.dumps({"ok": False, "reason": "it misses the goal", "trials": _trials(Path(f"{out}.run"))})
        manifest = artifact.manifest
        return json.dumps({"ok": True, "artifact": str(artifact.path), **_figures(manifest["result"])}, indent=1)

    return _said(made)


def front(run: str) -> str:
    """Return the trials of a run (the folder OUT.run) that no other beats in speed and fidelity at once, as JSON."""

    def found() -> str:
        from diffopt.search.goals import objectives
        from diffopt.search.selection import front as best
        from diffopt.session import STORE

        if not (Path(run) / STORE).is_file():
            raise DiffoptError("there is no run", where=run, hint="give the folder OUT.run of a compile")
        import numpy as np

        from diffopt.bench.outcome import Measured
        from diffopt.search.store import Store

        with Store(Path(run) / STORE) as store:
            trials = [trial for trial in store.trials("search") if isinstance(trial.outcome, Measured)]
        outcomes = [trial.outcome for trial in trials if isinstance(trial.outcome, Measured)]
        points = np.array([objectives(outcome) for outcome in outcomes])
        kept = best(points, np.zeros(len(outcomes))).tolist() if outcomes else []
        said = [{"trace": trials[i].candidate.trace, **_figures(outcomes[i].to_json())} for i in kept]
        return json.dumps(said, indent=1)

    return _said(found)


TOOLS: tuple[Callable[..., str], ...] = (lift, passes, apply, measure, front)


def server() -> MCPServer:
    """Return the server with its tools.

    Raises:
        DiffoptError: the extra is not installed.
    """
    try:
        sdk = importlib.import_module("mcp.server.mcpserver")
    except ImportError:
        raise DiffoptError("the MCP server needs the extra mcp", hint="pip install 'diffopt[mcp]'") from None
    import diffopt

    made: MCPServer = sdk.MCPServer(
        "diffopt", instructions=INSTRUCTIONS, version=diffopt.__version__, log_level="WARNING"
    )
    for tool in TOOLS:
        made.tool()(tool)
    return made


def _said(work: Callable[[], str]) -> str:
    """Return what some work says, or the one line of what the caller must mend."""
    try:
        return work()
    except DiffoptError as error:
        return f"refused: {error}"
    except OSError as error:
        return f"refused: {error.strerror or type(error).__name__}"


def _figures(outcome: dict[str, Any]) -> dict[str, Any]:
    latency = outcome["latency"]
    return {
        "speedup": {name: latency[name] for name in ("ratio", "lo", "hi")},
        "tier": outcome["tier"],
        "fidelity": {name: value for name, value in outcome["fidelity"].items() if name != "worst"},
        "memory": outcome["memory"],
    }


def _trials(run: Path) -> list[dict[str, Any]]:
    from diffopt.search.store import Store
    from diffopt.session import STORE

    with Store(run / STORE) as store:
        return [{"trace": t.candidate.trace, "outcome": t.outcome.to_json()} for t in store.trials("search")]
