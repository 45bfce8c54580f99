"""Who proposes the first candidates: rules, a language model beside them, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffopt.ir.errors import DiffoptError

if TYPE_CHECKING:
    from diffopt.api import Goal
    from diffopt.search.records import Proposer

KEY, BASE_URL, MODEL = "OPENAI_API_KEY", "OPENAI_BASE_URL", "DIFFOPT_LLM_MODEL"
"""Environment variables that stand in for what the command line does not say."""

ProposersFor = Callable[[Path], "Sequence[Proposer]"]
"""Makes the proposers of a run, given its folder."""


def proposers_for(
    planner: str,
    goal: Goal,
    target: str,
    environment: Mapping[str, str],
    *,
    base_url: str | None = None,
    model: str | None = None,
) -> ProposersFor:
    """Return what makes the proposers of a run.

    Args:
        planner: `rules`; `llm`, which asks an OpenAI-compatible endpoint once and falls in with the rules; or `none`.
        environment: where the key of the endpoint is looked up; it is handed to the client and nowhere else.

    Raises:
        DiffoptError: an endpoint without a model or URL, or the extra is not installed.
    """
    from diffopt.search.presets import RuleProposer

    if planner == "none":
        return lambda folder: []
    if planner == "rules":
        return lambda folder: [RuleProposer(target)]
    url = base_url or environment.get(BASE_URL)
    name = model or environment.get(MODEL)
    if not url:
        raise DiffoptError("--planner llm needs an endpoint", hint=f"give --llm-base-url URL, or set {BASE_URL}")
    if not name:
        raise DiffoptError("--planner llm needs a model", hint=f"give --llm-model NAME, or set {MODEL}")

    from diffopt.llm.client import Client

    client = Client(url, name, environment.get(KEY, ""))
    client.check()

    def make(folder: Path) -> Sequence[Proposer]:
        from diffopt.bench.device import devices
        from diffopt.llm.planner import Planner
        from diffopt.llm.transcript import Transcript

        found = devices(accelerators=target != "cpu")
        device = next((d for d in found if str(d["device"]).startswith(target)), found[0])
        transcript = Transcript(folder / "llm.jsonl", mode="record")
        planner = Planner(client, transcript, goal=describe_goal(goal), device=device)
        return [planner, RuleProposer(target)]

    return make


def describe_goal(goal: Goal) -> str:
    """Return the goal as a sentence."""
    parts = [f"the least latency at batch 1, with images of tier {goal.tier} or stronger"]
    if goal.min_fidelity is not None:
        parts.append(f"a median paired PSNR of at least {goal.min_fidelity:g} dB")
    if goal.max_latency is not None:
        parts.append(f"at most {goal.max_latency:g} ms a call")
    if goal.max_memory is not None:
        parts.append(f"at most {goal.max_memory:g} GB of peak memory")
    if goal.keep_steps:
        parts.append("the number of steps unchanged")
    return ", ".join(parts)
