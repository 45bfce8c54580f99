"""The tasks: the paper's shares, the same for a seed, and each one whole."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from diffopt.bench.suite import shares, tasks
from diffopt.bench.suite.families import FAMILIES
from diffopt.bench.suite.static_gate import static_gate
from diffopt.bench.suite.task import Task
from diffopt.bench.suite.writing import plain_script


@pytest.mark.parametrize("seed", [0, 1, 20])
def test_every_seed_has_the_papers_shares(seed: int) -> None:
    every = tasks(seed)
    assert Counter(task.level for task in every) == shares.LEVELS
    assert Counter(task.family for task in every) == shares.PAPER_FAMILIES
    assert Counter(sampler for task in every if (sampler := named_sampler(task))) == shares.PAPER_SAMPLERS
    named = Counter(method.name for task in every for method in task.methods)
    assert {name: named[name] for name in shares.PAPER_METHODS} == shares.PAPER_METHODS


def named_sampler(task: Task) -> str:
    fast = task.method("fast-sampler")
    return str(fast.options["sampler"]) if fast else task.sampler


def test_a_seed_gives_the_same_tasks_every_time() -> None:
    first = json.dumps([task.to_json() for task in tasks(3)])
    tasks.cache_clear()
    assert json.dumps([task.to_json() for task in tasks(3)]) == first


def test_a_held_out_part_asks_for_other_things_under_other_names() -> None:
    public, other = tasks(0), tasks(1)
    assert not {task.id for task in public} & {task.id for task in other}
    same = sum(a.expected() == b.expected() for a, b in zip(public, other, strict=True))
    assert same < len(public) / 3


def test_levels_name_what_they_should() -> None:
    for task in tasks():
        assert (task.level == 1) == (not task.methods and task.target is None)
        assert len(task.methods) == 1 or task.level != 2
        assert len(task.methods) >= 2 or task.level != 3
        assert (task.target is not None) == (task.level > 3)
        assert len({method.name for method in task.methods}) == len(task.methods)


def test_no_task_asks_a_transformer_for_what_is_for_unets() -> None:
    for task in tasks():
        if FAMILIES[task.family].kind == "transformer":
            assert not {"deepcache", "tome"} & {method.name for method in task.methods}


def test_the_words_name_the_model_its_steps_and_every_method() -> None:
    for task in tasks():
        assert task.about.model in task.prompt
        assert f"{task.steps} steps" in task.prompt
        words = {"deepcache": "DeepCache", "tome": "ToMe", "tgate": "T-Gate", "half": "16-bit", "fast-sampler": " in "}
        assert all(words[method.name] in task.prompt for method in task.methods)


def test_the_reference_script_is_no_answer_to_tasks_that_ask_for_methods() -> None:
    for task in tasks()[41:377:12]:
        assert not static_gate(task, task.reference).passed


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_script_that_can_be_lifted(family: str) -> None:
    task = next(task for task in tasks() if task.level == 1 and task.family == family)
    code = plain_script(task.about, sampler=task.sampler, steps=task.steps)
    assert static_gate(task, code).reasons == ()
