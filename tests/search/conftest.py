"""The synthetic problem, outcomes made of plain numbers, and a small module."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.outcome import Measured, Outcome
from diffopt.ir.description import ComponentDescription, PipelineDescription, build_module
from diffopt.passes.pipeline import Trace
from diffopt.search.records import Candidate, Trial
from diffopt.search.repair import repair
from diffopt.search.space import Legal
from diffopt.search.study.synthetic import Experts, Synthetic, measured
from diffopt.search.variation import fresh


@pytest.fixture
def outcome() -> Callable[..., Measured]:
    return measured


@pytest.fixture
def synthetic() -> Callable[..., Synthetic]:
    return Synthetic


@pytest.fixture
def trial() -> Callable[..., Trial]:
    def make(number: int, outcome: Outcome, *, kept: bool = False, trace: str = "fuse") -> Trial:
        return Trial(Candidate(number, trace, f"key{number}", "test", {"steps_kept": float(kept)}), outcome)

    return make


@pytest.fixture(scope="session")
def module() -> ModuleOp:
    """Build a small Stable Diffusion pipeline from its description; no weights are needed to search it."""
    parts = (
        ComponentDescription("text_encoder", "transformers.CLIPTextModel", {"hidden_size": 128}),
        ComponentDescription("tokenizer", "transformers.CLIPTokenizer", {}),
        ComponentDescription("unet", "diffusers.UNet2DConditionModel", {"up_block_types": ["a", "b", "c"]}),
        ComponentDescription("scheduler", "diffusers.DDIMScheduler", {"prediction_type": "v_prediction"}),
        ComponentDescription("vae", "diffusers.AutoencoderKL", {}),
    )
    description = PipelineDescription(
        "small", "diffusers.StableDiffusionPipeline", "some/model", parts, steps=50, guidance=2.0, height=64, width=64
    )
    return build_module(description)


@pytest.fixture
def experts() -> Callable[[Synthetic], Experts]:
    return Experts


@pytest.fixture
def random_programs() -> Callable[..., list[str]]:
    """Return random legal programs, no two the same: the baseline any search must beat."""

    def draw(problem: Synthetic, count: int, seed: int) -> list[str]:
        rng = np.random.default_rng(seed)
        found: dict[str, str] = {}
        while len(found) < count:
            varied = fresh(problem, rng)
            steps = repair(varied, problem, rng) if varied else None
            if steps is not None and isinstance(legal := problem.check(steps), Legal):
                found.setdefault(legal.key, str(Trace(steps)))
        return list(found.values())

    return draw
