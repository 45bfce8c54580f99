"""Who proposes, who searches and who rewrites in a run: rules, a language model in one of its modes, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.ir.errors import DiffoptError

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from diffopt.api import Goal
    from diffopt.ir.rewrite import Rewriter
    from diffopt.llm.client import Client
    from diffopt.llm.library import Library
    from diffopt.llm.transcript import Transcript
    from diffopt.search.records import Proposer
    from diffopt.search.space import Space

KEY, BASE_URL, MODEL = "OPENAI_API_KEY", "OPENAI_BASE_URL", "DIFFOPT_LLM_MODEL"
"""Environment variables that stand in for what the command line does not say."""

PLANNERS = ("rules", "llm", "none", "diffagent", "best-of-n", "sequential")


@dataclass(frozen=True)
class LlmSettings:
    """What a user says of the language model.

    Args:
        calls, tokens, money: upper bounds of a run; price: of a million prompt and of a million answer tokens.
        replay: a transcript to answer from, strictly, instead of an endpoint.
        passes: new passes to have written once the search has stopped.
        sandbox_level: least level of the sandbox for generated code, see `diffopt.llm.sandbox.LEVELS`.
        data: folder of promoted passes and lessons; `None` for the user's own.
    """

    base_url: str | None = None
    model: str | None = None
    calls: int = 24
    tokens: int = 400_000
    money: float | None = None
    price: tuple[float, float] | None = None
    replay: Path | None = None
    passes: int = 0
    sandbox_level: int = 4
    data: Path | None = None


@dataclass(frozen=True)
class Agent:
    """What acts in one run.

    Args:
        searching: spends the budget of measurements; the engine's own search where there is none.
        rewriter: does the rewrites that generated passes ask for.
        steer: lets hints into the space that the engine draws from.
        report: what the model was asked and what it cost, for the manifest.
        finish: told all trials at the end of the search.
    """

    proposers: Sequence[Proposer]
    searching: Callable[..., str] | None = None
    rewriter: Rewriter | None = None
    steer: Callable[[Space], Space] = field(default=lambda space: space)
    report: Callable[[], dict[str, Any]] = dict
    finish: Callable[[Sequence[Any]], None] = field(default=lambda trials: None)


AgentFor = Callable[[Path, "ModuleOp"], Agent]
"""Makes what acts in a run, given its folder and the lifted module."""


def data_folder(environment: Mapping[str, str]) -> Path:
    """Return the user's folder of promoted passes and lessons."""
    given = environment.get("XDG_DATA_HOME")
    return (Path(given) if given else Path(environment.get("HOME", "~")).expanduser() / ".local" / "share") / "diffopt"


def promoted(environment: Mapping[str, str], data: Path | None = None) -> Library:
    """Return the library of promoted passes."""
    from diffopt.llm.library import Library

    return Library((data or data_folder(environment)) / "passes")


def agent_for(
    planner: str,
    goal: Goal,
    target: str,
    environment: Mapping[str, str],
    settings: LlmSettings | None = None,
    *,
    seed: int = 0,
) -> AgentFor:
    """Return what makes the agent of a run.

    Args:
        planner: `rules`; `none`; `llm`, which asks once and falls in with the rules; or a mode that searches by itself:
            `diffagent`, `best-of-n`, `sequential`.
        environment: where the key of the endpoint is looked up; it is handed to the client and nowhere else.

    Raises:
        DiffoptError: an endpoint without a model or URL, or the extra is not installed.
    """
    from diffopt.llm.library import Library
    from diffopt.llm.rewriter import SandboxedRewriter
    from diffopt.llm.sandbox import Limits
    from diffopt.search.presets import RuleProposer

    settings = settings or LlmSettings()
    kept = promoted(environment, settings.data)
    limits = Limits(level=settings.sandbox_level)
    client = client_for(environment, settings) if planner not in ("rules", "none") or settings.passes else None

    def make(folder: Path, module: ModuleOp) -> Agent:
        rewriter = SandboxedRewriter((Library(folder / "passes"), kept), limits)
        rules = [] if planner == "none" else [RuleProposer(target)]
        if client is None:
            return Agent(rules, rewriter=rewriter)
        from diffopt.llm_run import LlmRun

        run = LlmRun(client, folder, module, goal, target, settings, rewriter, data=kept.folder.parent, seed=seed)
        return run.agent(planner, rules)

    return make


def client_for(environment: Mapping[str, str], settings: LlmSettings) -> Client:
    """Return the client that the settings and the environment describe; nothing is sent.

    Raises:
        DiffoptError: no endpoint or model is named, or the extra is not installed.
    """
    from diffopt.llm.budget import Budget, Price
    from diffopt.llm.client import Client

    # A replay asks nobody: the address only has to be one.
    url = settings.base_url or environment.get(BASE_URL) or ("http://127.0.0.1:1/v1" if settings.replay else None)
    name = settings.model or environment.get(MODEL)
    if not url:
        raise DiffoptError("a language model needs an endpoint", hint=f"give --llm-base-url URL, or set {BASE_URL}")
    if not name:
        raise DiffoptError("a language model needs a name", hint=f"give --llm-model NAME, or set {MODEL}")
    price = None if settings.price is None else Price(*settings.price)
    budget = Budget(settings.calls, settings.tokens, settings.money, price)
    client = Client(url, name, environment.get(KEY, ""), budget=budget, home=environment.get("HOME", ""))
    if settings.replay is None:
        client.check()
    return client


def transcript_for(client: Client, settings: LlmSettings, place: Path) -> Transcript:
    """Return the transcript that a client goes on with: the one to replay alone, or the one at `place`, read first.

    Raises:
        DiffoptError: it is missing where it is replayed, or cannot be read.
    """
    from diffopt.llm.transcript import Transcript

    transcript = Transcript(settings.replay or place, mode="record" if settings.replay is None else "replay")
    client.take_up(transcript)
    return transcript


def describe_goal(goal: Goal) -> str:
    """Return the goal as a sentence."""
    parts = [f"the least {goal.minimize} at batch 1, with images of tier {goal.tier} or stronger"]
    if goal.min_fidelity is not None:
        parts.append(f"a median paired PSNR of at least {goal.min_fidelity:g} dB")
    if goal.max_latency is not None:
        parts.append(f"at most {goal.max_latency:g} ms a call")
    if goal.max_memory is not None:
        parts.append(f"at most {goal.max_memory:g} GB of peak memory")
    if goal.keep_steps:
        parts.append("the number of steps unchanged")
    return ", ".join(parts)
