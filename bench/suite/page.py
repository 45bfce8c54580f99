"""The page of DiffBench: what the suite is, and what was run of it, from files of results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from diffopt.bench.suite.families import FAMILIES
from diffopt.bench.suite.generate import tasks
from diffopt.bench.suite.judging import STATUSES, LevelScore, score
from diffopt.bench.suite.measured_gates import ADHERENCE
from diffopt.bench.suite.page_searches import section
from diffopt.bench.suite.results import Results, levels
from diffopt.bench.suite.running import tasks_of
from diffopt.bench.suite.searches import Searches
from diffopt.bench.suite.task import QUALITY_LOSS, VERSION, Task

PAPER = {1: "90.24", 2: "91.38", 3: "99.23", 4: "33.33", 5: "63.44"}
"""The paper's best pass rates by level, in percent: its agent with Claude Sonnet 4 (its Table 1)."""

INTRODUCTION = """# DiffBench

The benchmark of *DiffBench Meets DiffAgent* (arXiv 2601.03178) was never released. This is its suite rebuilt from the taxonomy
that the paper publishes, version {version}. This page is written by `diffopt bench report RESULTS... -o docs/diffbench.md`.
What other tools make of the same built-in models stands in `docs/peers.md`.

    diffopt bench tasks --count 1 --json     a task of each level: words, specification, expected attributes, reference code
    diffopt bench run --count 8 --static     the smoke subset: 40 tasks, 8 a level, through the static gate alone
    diffopt bench run --count 8     the same 40 through all gates
    diffopt bench run --levels 1,2,3 --minutes 60 -o out/rules.json.gz     measure for an hour; the same again goes on
    diffopt bench run --answers DIR --arm NAME     judge scripts of your own, DIR/TASK.py
    diffopt bench search --minutes 60 -o out/searches.json.gz     targets of levels 4 and 5, and arms at equal budgets
    diffopt bench run --levels 4,5 --targets out/searches.json.gz --answers DIR     judge your own against those targets
    diffopt bench submit out/rules.json.gz --board board.json     check results, measure some again, enter them

## The tasks

| level | tasks | asks for |
| --- | --- | --- |
| 1 | 41 | a plain pipeline |
| 2 | 116 | one named method |
| 3 | 261 | several named methods |
| 4 | 93 | a speed-up, at 5 % of quality at most |
| 5 | 93 | a latency on this machine, at the same bound |

`--seed 0` gives the 604 public tasks. Any other seed gives a held-out part: 604 tasks of the same shares with other parameters,
combinations and words. How often each sampler (120 times) and method (DeepCache 276, ToMe 248, T-Gate 186) is named is the
paper's; how that falls on the levels, and all that the paper leaves open, is in `docs/decisions/0081-what-the-paper-leaves-open-of-its-tasks.md`.
The paper's models cannot be shipped; a built-in model of each family stands for it. All are of 64x64 pixels, so the paper's
sizes (256 to 1024) are not asked for.

"""

GATES = """
## The gates

An answer is a script with `load(model, device, engines)`, which builds the pipeline, and `generate(pipe, prompt, generator)`,
which makes the images of one call. What is measured is that script, unchanged, with each call one run of `generate`.

1. **Static.** The script is lifted (`docs/lifting.md`), never run. Class of the pipeline, model, scheduler, steps, guidance, size,
   data type, methods with their parameters and preprocessor must be those asked for; code that means the same passes, methods
   that were not asked for fail, parts in another data type, functions of the pipeline replaced and callbacks too (levels 1 to 3), and
   so does code that cannot be followed: names bound anew, `exec`, methods called where they may not be, the judging itself imported. `strict` judges as the paper does: the reference solution's components as they are written there.
2. **Absolute.** It runs, and images show at least {adherence} % of what held-out prompts ask for, as the model's scorer reads them.
3. **Relative**, against the baseline that the task describes, rebuilt and raced in interleaved pairs. Levels 1 to 3: the scheduler
   is stepped as often as declared, noise is drawn from the generator that was given, each method says that it did something, and
   level 1 changes nothing (tier `exact`). All levels: at most {loss} % of adherence is lost, L = mean(S_base - S) / mean(S_base), S
   being the share of its prompt that an image shows. Levels 4 and 5: the target.

The paper asks for the third gate in levels 4 and 5 alone. S_p is the share of judged tasks that pass all gates, one answer a
task; S_a the mean of min(U / U_req, 1) over hard tasks, an answer that fails another gate counting 0.

What catches whom is kept as tests (`tests/bench/suite/test_broken_submissions.py`).
"""

BESIDE = """
The paper's figures stand beside ours for orientation, not as a race: they are of a language model that reads the words, on other
models and an unnamed machine; the arm `rules` is given the structured specification.
"""

NOT_YET = """
## What is not here yet

- Levels 4 and 5 of the baselines that are not in the table of targets above: `diffopt bench search` goes on with them. Without a target
  their tasks end as `no target`.
- The arms of the paper's kind with a language model: no endpoint was at hand. `--llm-base-url`, `--llm-model`, `--llm-replay` give one.
- Tasks from an image (img2img): the paper names them and gives no share. An extended track beyond the paper.
- The packages DeepCache and tomesd are read by the static gate, and T-Gate's loaders where they change the pipeline they are given; a
  call as `pipe.tgate(...)` is not. None of them is installed here, so no answer that uses them was measured.
"""


def page(results: Sequence[Results], searches: Sequence[Searches] = ()) -> str:
    """Return the page as Markdown."""
    parts = [INTRODUCTION.format(version=VERSION), _families(results), GATES.format(
        adherence=f"{100 * ADHERENCE:.0f}", loss=f"{100 * QUALITY_LOSS:g}",
    )]  # fmt: skip
    parts += ["\n## Results\n", BESIDE, *(_result(found) for found in results), *map(section, searches), NOT_YET]
    return "".join(parts)


def _families(results: Sequence[Results]) -> str:
    rows = []
    counted = Counter(task.family for task in tasks())
    verdicts = [(task.family, found.verdicts[task.id]) for found in results for task in tasks_of(found)]
    missing = {family: verdict["reasons"][0] for family, verdict in verdicts if verdict["status"] == "unavailable"}
    # A model may have come after some of the results.
    there = {family for family, verdict in verdicts if verdict["status"] != "unavailable"}
    for key, family in FAMILIES.items():
        state = "trained" if key in there else missing.get(key, "trained")
        rows.append(f"| {family.title} | {counted[key]} | `{family.pipeline_class}` | `{family.model}` | {state} |")
    head = "| family | tasks | class | built-in model | here |\n| --- | --- | --- | --- | --- |\n"
    return f"{head}{chr(10).join(rows)}\n\nTasks of a model without weights are `unavailable`; their code is still judged.\n"


def _result(results: Results) -> str:
    asked = tasks_of(results)
    scores = [score([task for task in asked if task.level == level], results.verdicts) for level in levels(asked)]
    lines = [
        f"\n### Arm `{results.arm}`, seed {results.seed}\n",
        _machine(results),
        _scores(scores),
        _available(results, asked),
    ]
    return "\n".join([*lines, *_reasons(results, asked), *_spread(results)]) + "\n"


def _machine(results: Results) -> str:
    devices = results.machine.get("devices") or [{}]
    versions = results.machine.get("versions", {})
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "diffusers", "transformers") if name in versions)
    protocol = results.protocol
    return (
        f"{devices[0].get('name')}, {named}. {protocol.get('prompts')} held-out prompts a program, "
        f"{protocol.get('pairs', ['?'])[-1]} timed pairs in levels 1 to 3, {len(results.measurements)} programs measured against "
        f"their baselines.\n"
    )


def _scores(scores: Iterable[LevelScore]) -> str:
    rows = ["| level | " + " | ".join(STATUSES) + " | S_p of judged | paper's best | static gate | strict |",
            "| --- |" + " --- |" * (len(STATUSES) + 4)]  # fmt: skip
    for found in scores:
        counts = " | ".join(str(found.statuses.get(status, 0)) for status in STATUSES)
        rate = "" if found.pass_rate is None else f"{100 * found.pass_rate:.1f} %"
        rows.append(
            f"| {found.level} | {counts} | {rate} | {PAPER[found.level]} % | {found.static} of {found.answered} | "
            f"{found.strict} of {found.answered} |"
        )
    return "\n".join(rows) + "\n"


def _available(results: Results, asked: Sequence[Task]) -> str:
    """Say how the tasks of levels 1 to 3 whose model is there fare at the static gate."""
    named = [results.verdicts[task.id] for task in asked if task.level < 4]
    verdicts = [verdict for verdict in named if verdict["status"] != "unavailable"]
    passed = sum(verdict.get("static", {}).get("passed", False) for verdict in verdicts)
    measured = sum("absolute" in verdict for verdict in verdicts)
    through = sum(verdict["status"] == "passed" for verdict in verdicts)
    return (
        f"Of the {len(verdicts)} tasks of levels 1 to 3 whose model is there, {passed} pass the static gate; {measured} were measured, "
        f"and {through} of those pass all gates.\n"
    )


def _reasons(results: Results, asked: Sequence[Task]) -> list[str]:
    found: Counter[tuple[str, str]] = Counter()
    for task in asked:
        verdict = results.verdicts[task.id]
        if verdict["status"] in ("failed", "no answer"):
            found[f"{verdict['status']} {verdict.get('error', '')}".strip(), "; ".join(verdict["reasons"])] += 1
    if not found:
        return []
    rows = [f"- {count}: {status}: {reason}" for (status, reason), count in found.most_common(12)]
    return ["What did not pass:\n", *rows, ""]


def _spread(results: Results) -> list[str]:
    """Return figures of what was measured, by methods."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for task in tasks_of(results):
        figures = results.verdicts[task.id].get("figures")
        if figures and task.level < 4:
            methods = ", ".join(method.name for method in task.methods) or "none"
            groups.setdefault((task.family, methods), []).append(figures)
    if not groups:
        return []
    rows = ["Medians over the tasks measured; three pairs a program tell a speed-up roughly, and none is judged by it:\n",
            "| family | methods | tasks | speed-up | adherence lost | PSNR to the baseline |", "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for (family, methods), figures in sorted(groups.items()):
        middle = [median(entry[name][0] for entry in figures) for name in ("speedup", "quality_loss")]
        noise = median(entry["psnr_median"] for entry in figures)
        rows.append(
            f"| {family} | {methods} | {len(figures)} | {middle[0]:.2f} | {100 * middle[1]:.1f} % | {noise:.1f} dB |"
        )
    return rows
