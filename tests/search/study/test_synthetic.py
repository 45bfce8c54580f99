from __future__ import annotations

import numpy as np
import pytest

from diffopt.search.selection import hypervolume
from diffopt.search.study.methods import random_legal
from diffopt.search.study.problem import needed, reached
from diffopt.search.study.synthetic import Synthetic


def test_no_program_lies_beyond_the_reference() -> None:
    problem = Synthetic(seed=4)
    trials = random_legal(problem, 60, 0)
    points = np.array([problem.truth(trial) for trial in trials])
    assert 0 < hypervolume(points) < problem.reference()


def test_more_measurements_of_a_run_reach_no_less_but_for_noise() -> None:
    problem = Synthetic(seed=4)
    trials, reference = random_legal(problem, 40, 0), problem.reference()
    shares = reached(problem, trials, (5, 20, 40), reference)
    assert shares[0] < shares[2] + 0.02
    assert needed(problem, trials, shares[1] - 0.05, reference) is not None
    assert needed(problem, trials, 0.999, reference) is None


def test_a_small_problem_is_counted_whole() -> None:
    problem = Synthetic(seed=2, names=("fuse", "bits"))
    programs = ("fuse", 'bits{width="w8"}', 'bits{width="w4"}')
    texts = [*programs, *(f"{a},{b}" for a in programs for b in programs if a[:4] != b[:4])]
    points = []
    for text in texts:
        ratio, psnr, memory = problem.effect(problem.parse(text).passes)
        points.append([-np.log(ratio), -min(psnr, 80.0), np.log(memory)])
    assert problem.reference() == pytest.approx(hypervolume(np.array(points)))
