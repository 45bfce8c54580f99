"""One run in direct mode: a language model writes the whole script, the runner executes it confined, three gates judge."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffopt
from diffopt.agents import LlmSettings, client_for, transcript_for
from diffopt.bench.disk import make_folder, write_text
from diffopt.bench.environment import needed_to_run
from diffopt.bench.evaluate import Evaluator, Measured, Outcome, Program, Split, outcome_from_json
from diffopt.bench.tiers import TIERS
from diffopt.comparison import Side, side, workload_of
from diffopt.events import Decided, Deciding, Listener, Progress, Stage, silence
from diffopt.ir.errors import DiffoptError
from diffopt.llm.client import Client
from diffopt.llm.debugger import Effort, Mended
from diffopt.llm.direct import Attributes, Direct, Gate, Script, gates, judge
from diffopt.llm.sandbox import LEVELS, level_of
from diffopt.llm.template import with_folder
from diffopt.session import FINAL_PAIRS, REST_S, SEARCH_PAIRS

FORMAT = 1
RUNNER_LEVEL = 3
"""Most that the runner reaches: a pipeline needs threads, and its compilers need processes."""
TRANSCRIPT, VERDICT = "llm.jsonl", "verdict.json"
RUN_FILES = frozenset({TRANSCRIPT, VERDICT, "work", "engines", "outcomes"})


@dataclass(frozen=True)
class Wanted:
    """What a script is judged by: what it must hold, how its images must be, and how fast it must be.

    Args:
        scripts: most scripts that may be measured.
    """

    attributes: Attributes = field(default_factory=Attributes)
    tier: str = "near"
    min_psnr: float = 0.0
    min_speedup: float = 1.0
    max_latency_s: float | None = None
    scripts: int = 8

    def __post_init__(self) -> None:
        if self.tier not in TIERS[:-1]:
            raise DiffoptError(f"unknown tier {self.tier!r}", "--tier", f"one of {', '.join(TIERS[:-1])}")
        if self.scripts < 1:
            raise DiffoptError("must be at least 1", "--budget")
        for option, value in (
            ("--min-fidelity", self.min_psnr), ("--min-speedup", self.min_speedup),
            ("--max-latency", self.max_latency_s or 0.0),
        ):  # fmt: skip
            if not 0 <= value < 1e9:
                raise DiffoptError(f"must be a positive number, not {value:g}", option)

    def row(self, measure: Callable[[str], Outcome]) -> tuple[Gate, ...]:
        """Return the gates."""
        return gates(
            measure, self.attributes, tier=self.tier, min_psnr=self.min_psnr, min_speedup=self.min_speedup,
            max_latency_s=self.max_latency_s,
        )  # fmt: skip


def direct(
    source: str,
    task: str,
    out: str | Path,
    wanted: Wanted | None = None,
    *,
    environment: Mapping[str, str],
    llm: LlmSettings | None = None,
    reads: Sequence[str | Path] = (),
    prompts: str | None = None,
    size: tuple[int, int] | None = None,
    target: str = "cpu",
    settings: Mapping[str, str] | None = None,
    resume: bool = False,
    force: bool = False,
    seed: int = 0,
    listen: Listener = silence,
) -> dict[str, Any]:
    """Have a script written that passes the gates; write it to `out` and the verdict beside it, in `OUT.run`.

    Scripts are mended on the search's prompts; what passes there is judged once more, on held-out ones.

    Args:
        source: the reference, as `comparison.side` reads it: what it emits is what the model gets to accelerate.
        task: what is wanted, in words.
        reads: files and folders that the script may read beside libraries and the model.
        size: height and width of the images, where the reference does not tell.

    Returns:
        The verdict, as `verdict.json` has it; `passed` says whether there is a script.

    Raises:
        DiffoptError: bad input, an endpoint that never answers, or a kernel that cannot confine what was written.
    """
    wanted, llm = wanted or Wanted(), llm or LlmSettings()
    level = min(llm.sandbox_level, RUNNER_LEVEL)
    if not task.strip():
        raise DiffoptError("there is no task", "--task", "say what is wanted, in words")
    reference = side(source, settings or {})
    readable = needed_to_run(*_readable(reference, reads))
    client = client_for(environment, llm)
    place = Path(out)
    folder = _folder(place, resume=resume, force=force)
    transcript = transcript_for(client, llm, folder / TRANSCRIPT)
    work = workload_of([reference], prompts, size, seed)
    with Evaluator(
        reference.program, work, work=folder / "work", engines=folder / "engines", device=target,
        scorer=reference.scorer, seed=seed, hidden=(folder,),
        progress=lambda stage, done, total: listen(Progress(stage, done, total)),
    ) as evaluator:  # fmt: skip
        listen(Stage("measuring the reference against itself"))
        # Never taken from an earlier session: what confines it is asked of the kernel that is here now.
        itself = evaluator.evaluate(reference.program, pairs=SEARCH_PAIRS)
        if not isinstance(itself, Measured):
            raise DiffoptError(f"the reference does not run: {itself.kind}: {itself.message}", where=source)
        guards = [str(guard) for guard in _list(itself.environment.get("guards"))]
        require_level(level_of(guards), level)
        evaluator.place.readable = readable
        listen(Stage(f"having a script written; at most {wanted.scripts} are measured"))
        bench = _Bench(evaluator, folder / "outcomes", wanted.scripts, listen)
        writer = Direct(client, transcript, effort=Effort(), enough=lambda: bench.spent)
        found = writer.write(task, reference.program.pipeline_py, wanted.row(lambda code: bench(code, "search")))
        verdict = {
            "format": FORMAT,
            "diffopt": diffopt.__version__,
            "source": source,
            "task": task,
            "wanted": dataclasses.asdict(wanted),
            "self_test": itself.to_json(),
            **_judged(found, wanted, bench, listen),
            "sandbox": {"level": level_of(guards), "name": LEVELS[level_of(guards)], "guards": guards},
            "llm": _cost(client, writer),
        }
    write_text(folder / VERDICT, json.dumps(verdict, indent=1, ensure_ascii=False) + "\n")
    if found.piece is not None and verdict["passed"]:
        write_text(place, with_folder(found.piece.code, reference.program.pipeline_py))
    return verdict


class _Bench:
    """Measures scripts, each once in the life of the run, and counts them."""

    def __init__(self, evaluator: Evaluator, folder: Path, most: int, listen: Listener) -> None:
        self._evaluator, self._folder, self._most, self._listen = evaluator, folder, most, listen
        self._scripts: set[str] = set()

    @property
    def spent(self) -> bool:
        """Whether as many scripts were measured as may be."""
        return len(self._scripts) >= self._most

    def __call__(self, code: str, split: Split) -> Outcome:
        """Return the outcome of a script: found in the run, or measured now."""
        code = with_folder(code, self._evaluator.baseline.pipeline_py)
        name = _hash(code)
        file = self._folder / f"{split}-{name}.json"
        self._scripts.add(name)
        if file.exists():
            try:
                return outcome_from_json(json.loads(file.read_text(encoding="utf-8")))
            except (OSError, LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
                raise DiffoptError(
                    "no outcome of a measurement", str(file), "remove it: it is measured again"
                ) from None
        program, final = Program(f"script {name}", code), split == "heldout"
        self._listen(Deciding(split, program.name))
        outcome = self._evaluator.evaluate(
            program, split=split, pairs=FINAL_PAIRS if final else SEARCH_PAIRS, rest_s=REST_S if final else 0.0
        )
        make_folder(self._folder)
        write_text(file, json.dumps(outcome.to_json()))
        self._listen(Decided(split, program.name, outcome))
        return outcome


def _judged(found: Mended[Script], wanted: Wanted, bench: _Bench, listen: Listener) -> dict[str, Any]:
    """Return the part of the verdict on the script: on the search's prompts, and where it passes there, on held-out ones."""
    attempts = [
        {"start": a.start, "fix": a.fix, "script": _hash(a.piece.code), "reason": a.piece.reason, "problem": a.problem}
        for a in found.attempts
    ]
    script = found.piece
    if script is None:
        last = found.attempts[-1].problem if found.attempts else ""
        gate, _, reason = last.removeprefix("gate ").partition(": ")
        return {"passed": False, "gate": gate, "reason": reason or found.why, "attempts": attempts}
    listen(Stage("judging it on held-out prompts"))
    gate, reason = judge(script.code, wanted.row(lambda code: bench(code, "heldout")))
    return {
        "passed": not gate,
        "gate": gate,
        "reason": reason,
        "script": _hash(script.code),
        "attempts": attempts,
        "search": bench(script.code, "search").to_json(),
        "heldout": bench(script.code, "heldout").to_json(),
    }


def require_level(reached: int, level: int) -> None:
    """Refuse to go on where the runner is less confined than is asked for.

    Raises:
        DiffoptError: which guards are missing.
    """
    if reached < level:
        missing = ", ".join(LEVELS[reached + 1 : level + 1])
        hint = "a kernel with Landlock and seccomp gives it; --sandbox-level asks for less"
        raise DiffoptError(f"nothing that a model wrote is run: level {reached}, no {missing}", "sandbox", hint)


def _readable(reference: Side, reads: Sequence[str | Path]) -> list[Path]:
    for path in reads:
        if not os.path.exists(path):
            raise DiffoptError("is not there", str(path), "--reads names what the script may read")
    return [*map(Path, reads), *([reference.model] if reference.model is not None else [])]


def _folder(out: Path, *, resume: bool, force: bool) -> Path:
    """Return the run's folder beside `out`: fresh, or as it was left.

    Raises:
        DiffoptError: something is in the way, or there is nothing to resume.
    """
    if out.suffix != ".py":
        raise DiffoptError("must end in .py", str(out), "give the script's place with -o")
    if out.is_dir() or (out.exists() and not (force or resume)):
        raise DiffoptError("already exists", str(out), "use --force to replace it")
    folder = out.with_name(f"{out.stem}.run")
    if resume:
        if not folder.is_dir():
            raise DiffoptError("there is no run to resume", str(folder), "leave --resume out")
        return folder
    if folder.exists():
        if not force:
            raise DiffoptError("holds an earlier run", str(folder), "use --resume or --force")
        if not folder.is_dir() or not all(path.name in RUN_FILES for path in folder.iterdir()):
            raise DiffoptError("is no run of diffopt direct", str(folder), "move it away, or give another -o")
        shutil.rmtree(folder)
    return make_folder(folder)


def _cost(client: Client, writer: Direct) -> dict[str, Any]:
    spent = client.spent
    return {
        "model": client.model,
        "calls": spent.calls,
        "prompt_tokens": spent.usage.prompt_tokens,
        "answer_tokens": spent.usage.completion_tokens,
        "money": spent.money,
        "problems": [dataclasses.asdict(problem) for problem in writer.problems],
    }


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
