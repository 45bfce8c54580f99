"""What becomes of a program of a pair of passes: an image, a refusal, a crash or an end at its limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffopt import pair_runs
from diffopt.bench.environment import allowed
from diffopt.bench.forkserver import ForkServer

pytestmark = pytest.mark.slow

PIPE = """
import numpy as np

class Pipe:
    def __call__(self, prompt, **_):
        self.images = np.full((1, 8, 8, 3), {value}, np.float32)
        return self

def load(**_):
    return Pipe()
"""
PROGRAMS = {
    PIPE.format(value="0.5"): "",
    PIPE.format(value="np.nan"): "the image is not finite",
    "from diffopt.backends import BackendError\ndef load(**_):\n    raise BackendError('no layer', 'leave it out')": (
        "refused: no layer (leave it out)"
    ),
    "def load(**_):\n    raise KeyError('x')": "KeyError: 'x' (in load)",
    "def load(**_):\n    import os\n    os._exit(3)": "exited with code 3 in the middle of a request",
    "def load(**_):\n    while True: pass": "no answer to load in time",
}


def test_each_program_gets_its_own_answer_and_none_stops_the_rest(tmp_path: Path) -> None:
    (tmp_path / "engines").mkdir()
    (tmp_path / "models").mkdir()
    environment = allowed(os.environ, home=tmp_path, threads=1)
    with ForkServer(tmp_path / "server", environment=environment, preload=("torch", "diffopt.bench.worker")) as server:
        found = {code: pair_runs._run(server, code, tmp_path, 2.0) for code in PROGRAMS}
    assert found == PROGRAMS
