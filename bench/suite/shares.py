"""The paper's counts (its Figure 2 and section on levels), and how they are divided between the levels.

The paper gives the counts over all tasks; how they fall on the levels is ours: see docs/decisions/0081.
"""

from __future__ import annotations

from collections.abc import Mapping

LEVELS: Mapping[int, int] = {1: 41, 2: 116, 3: 261, 4: 93, 5: 93}

PAPER_FAMILIES: Mapping[str, int] = {
    "sd15": 166, "sd21": 166, "sdxl": 166, "pixart-alpha": 35, "pixart-sigma": 35, "controlnet": 26, "dit": 10,
}  # fmt: skip
PAPER_SAMPLERS: Mapping[str, int] = {"ddim": 120, "dpm-solver": 120, "unipc": 120}
PAPER_METHODS: Mapping[str, int] = {"deepcache": 276, "tome": 248, "tgate": 186}

FAMILIES: Mapping[int, Mapping[str, int]] = {
    1: {"sd15": 11, "sd21": 11, "sdxl": 11, "pixart-alpha": 2, "pixart-sigma": 2, "controlnet": 3, "dit": 1},
    2: {"sd15": 31, "sd21": 31, "sdxl": 31, "pixart-alpha": 6, "pixart-sigma": 6, "controlnet": 8, "dit": 3},
    3: {"sd15": 70, "sd21": 70, "sdxl": 70, "pixart-alpha": 15, "pixart-sigma": 15, "controlnet": 15, "dit": 6},
}
"""Tasks of the levels without a target."""

BASELINES: Mapping[str, int] = {"sd15": 9, "sd21": 9, "sdxl": 9, "pixart-alpha": 2, "pixart-sigma": 2}
"""Baselines of level 4, and again of level 5; each is asked for at three difficulties."""

SAMPLERS: Mapping[int, Mapping[str, int]] = {
    1: {"ddim": 14, "dpm-solver": 4, "unipc": 4},
    2: {"ddim": 6, "dpm-solver": 13, "unipc": 13},
    3: {"ddim": 10, "dpm-solver": 55, "unipc": 55},
    4: {"ddim": 15, "dpm-solver": 8, "unipc": 8},
    5: {"ddim": 15, "dpm-solver": 8, "unipc": 8},
}
"""Tasks that name a sampler; in levels 2 and 3 DPM-Solver++ and UniPC are the fast ones, in 4 and 5 these are baselines."""

METHODS: Mapping[int, Mapping[str, int]] = {
    2: {"fast-sampler": 26, "deepcache": 26, "tome": 24, "tgate": 20, "half": 20},
    3: {"fast-sampler": 110, "deepcache": 130, "tome": 104, "tgate": 70, "half": 147},
    4: {"deepcache": 20, "tome": 20, "tgate": 16},
    5: {"deepcache": 20, "tome": 20, "tgate": 16},
}
"""Tasks that name a method; in levels 4 and 5, baselines. Of 16-bit floats the paper gives no count."""

SIZES: Mapping[int, int] = {2: 230, 3: 23, 4: 8}
"""How many tasks of level 3 combine how many methods."""
