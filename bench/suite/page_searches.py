"""The part of the page that shows searches: targets, and every arm at every budget beside the bars."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from diffopt.bench.suite.choosing import fastest_first, speed
from diffopt.bench.suite.judging import reached
from diffopt.bench.suite.results import Results
from diffopt.bench.suite.running import tasks_of
from diffopt.bench.suite.searches import TARGETS, Searches
from diffopt.bench.suite.task import FACTORS

HEAD = """
### Levels 4 and 5: targets, and arms at equal measured budgets

    diffopt bench search --baselines 2 --minutes 30 -o out/searches.json.gz     search; the same again goes on
    diffopt bench search --threads 1 -o out/searches.json.gz                    all baselines, every arm

A task's target is what a search of 50 candidates reached on its baseline within the bound (*medium*), x0.8 (*easy*), x1.2 (*hard*):
optuna's TPE with a seed that no arm has, its winner measured on the terms that judge (`docs/decisions/0087-targets-come-from-another-search.md`).
All arms but the last write the same programs, those that the tasks' words offer ({words}), and are told the same of each.
One search of a baseline answers all its tasks; the rule that picks the answers is one for all
(`docs/decisions/0088-one-rule-picks-the-answers.md`). A program is measured once, whoever asks. Tasks of level 5 ask for
seconds, at the pace that the baseline had when its target was set. {planner}
"""

WORDS = "another sampler, fewer steps, DeepCache, ToMe, T-Gate, 16-bit floats, fused projections"


def lines_of(found: Searches) -> list[str]:
    """Return the tables as lines of Markdown."""
    return [*_targets(found), "", *_arms(found), *_cut_short(found)]


def section(found: Searches) -> str:
    """Return the section of the page."""
    planner = f"The arms of the paper's kind were planned for by {found.planner}." if found.planner else ""
    return "\n".join([HEAD.format(words=WORDS, planner=planner), _machine(found), *lines_of(found), ""])


def _machine(found: Searches) -> str:
    devices, versions = found.machine.get("devices") or [{}], found.machine.get("versions", {})
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "diffusers", "transformers") if name in versions)
    threads = found.search_protocol.get("threads")
    told = f", {threads} thread{'s' if threads != 1 else ''} a process" if threads else ""
    return (
        f"{devices[0].get('name')}{told}, {named}. In the search {found.search_protocol.get('prompts')} prompts and "
        f"{found.search_protocol['aimed_pairs'][-1]} pairs a program, {len(found.searched)} programs in all; to judge, "
        f"{found.protocol.get('prompts')} held-out prompts and {found.protocol['aimed_pairs'][0]} to "
        f"{found.protocol['aimed_pairs'][1]} pairs, {len(found.judged)} programs.\n"
    )


def _targets(found: Searches) -> list[str]:
    rows = [
        "| baseline | target (medium) | by | programs of the search within the bound |",
        "| --- | --- | --- | --- |",
    ]
    for base, family in found.baselines().items():
        asked = [program for _, program in found.runs[TARGETS][base]]
        kept = fastest_first(asked, found.records(family, base))
        best = found.targets.get(base)
        named = "none" if best is None else f"{best['speedup']:.2f}x, {1e3 * best['latency_s']:.0f} ms"
        by = next((trace for trace, name in found.runs[TARGETS][base] if best and name == found.winner(base)), "")
        rows.append(f"| {found.titles()[base]} | {named} | `{by}` | {len(kept)} of {len(asked)} |")
    return rows


def _arms(found: Searches) -> list[str]:
    rows = [
        "| arm | candidates | easy | medium | hard | S_p | S_a, hard | fastest within the bound, of the target |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, text in found.arms.items():
        for budget in found.budgets:
            results = found.results(name, budget)
            if results.answers:
                rows.append(f"| {f'`{name}`: {text}'} | {budget} | {' | '.join(_row(found, results, name, budget))} |")
    return rows


def _cut_short(found: Searches) -> list[str]:
    """Say which searches were cut short, where any were."""
    cut = [
        f"`{name}` {len(found.runs.get(name, {}).get(base, ()))} of {budget}"
        for base in found.baselines()
        for budget in found.budgets[-1:]
        for name in found.arms
        if len(found.runs.get(name, {}).get(base, ())) < budget and name not in found.ended.get(base, ())
    ]
    return ["", f"Cut short, and gone on with by the same command: {', '.join(cut)}."] if cut else []


def _row(found: Searches, results: Results, arm: str, budget: int) -> list[str]:
    tasks = [task for task in tasks_of(results) if results.verdicts[task.id]["status"] in ("passed", "failed")]
    waiting = len(results.answers) - len(tasks)
    cells = []
    for difficulty in FACTORS:
        mine = [task for task in tasks if task.target is not None and task.target.difficulty == difficulty]
        cells.append(f"{sum(results.verdicts[t.id]['status'] == 'passed' for t in mine)} of {len(mine)}")
    hard = [t for t in tasks if t.target is not None and t.target.difficulty == "hard"]
    achieved = [reached(results.verdicts[task.id]) for task in hard]
    passed = sum(results.verdicts[task.id]["status"] == "passed" for task in tasks)
    note = f" ({waiting} not measured)" if waiting else ""
    cells.append(f"{100 * passed / len(tasks):.1f} %{note}" if tasks else f"not measured{note}")
    cells.append(f"{fmean(achieved):.3f}" if achieved else "")
    cells.append(", ".join(_shares(found, arm, budget)))
    return cells


def _shares(found: Searches, arm: str, budget: int) -> Sequence[str]:
    """Return, for each baseline, the fastest program in the search within the bound, relative to the target."""
    shares = []
    for base, family in found.baselines().items():
        asked = found.runs.get(arm, {}).get(base, ())
        records = found.records(family, base)
        best = fastest_first([program for _, program in asked[:budget]], records)
        target = found.targets.get(base)
        if target is not None and len(asked) >= budget:
            shares.append(f"{speed(records[best[0]]) / target['speedup']:.2f}" if best else "none")
    return shares
