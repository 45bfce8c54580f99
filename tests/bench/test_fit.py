"""A fitted pass is printed as text that can be applied at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.fit import fit, main
from diffopt.passes.caching.cache_adaptive import CacheAdaptive
from diffopt.passes.caching.native_cache import NativeCache
from diffopt.passes.pipeline import Trace, applied, run
from diffopt.passes.steps.fit_timesteps import FitTimesteps


@pytest.mark.slow
def test_a_fitted_pass_applies_to_the_model_it_was_fitted_to(tiny_directory: Path) -> None:
    from diffopt.ir.description import build_module
    from diffopt.ir.source_directory import describe_directory

    module = build_module(describe_directory(tiny_directory))
    for what, kind in (("timesteps", FitTimesteps), ("drift", CacheAdaptive)):
        (made,) = Trace.parse(fit(what, str(tiny_directory), steps=4))
        assert isinstance(made, kind)
        assert isinstance(run(Trace((made,)), module), ModuleOp)


@pytest.mark.slow
def test_ratios_are_fitted_to_a_transformer_and_its_scheduler() -> None:
    from diffopt.bench.models import BUILTINS, describe
    from diffopt.ir.description import build_module

    fewer = Trace.parse("reduce-steps{steps=5}")
    (made,) = Trace.parse(fit("magcache", "demo:shapes-pixart", passes="reduce-steps{steps=5}", threshold=0.2))
    assert isinstance(made, NativeCache)
    assert (made.kind, made.threshold, made.ratios.count(",")) == ("mag", 0.2, 4)
    module = build_module(describe(BUILTINS["demo:shapes-pixart"]))
    assert isinstance(run(Trace((*fewer, made)), module), ModuleOp)
    assert "measured for 5 steps" in str(run(Trace((made,)), module))


@pytest.mark.slow
def test_what_has_no_transformer_blocks_gets_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["magcache", "demo:shapes", "--passes", "reduce-steps{steps=2}"])
    assert "UNet2DConditionModel holds no transformer blocks" in capsys.readouterr().err


def test_a_fitted_solver_lands_nearer_than_a_textbooks(tiny_directory: Path) -> None:
    from diffopt.backends.runtime import witnesses
    from diffopt.bench.fit import load_emitted
    from diffopt.ir.description import build_module
    from diffopt.ir.source_directory import describe_directory

    module = build_module(describe_directory(tiny_directory))
    fitted = fit("solver", str(tiny_directory), steps=3)

    def latents(trace: str) -> torch.Tensor:
        made = run(Trace.parse(trace), module) if trace else module
        assert isinstance(made, ModuleOp)
        generator = torch.Generator().manual_seed(7)
        found: torch.Tensor = load_emitted(made)("a red", generator=generator, output_type="latent").images
        return found

    whole = load_emitted(applied(Trace.parse(f"{fitted},fuse-pipeline"), module))
    whole("a red")
    assert all(witness.count > 0 for witness in witnesses(whole)), "a folded call counts for what was folded"
    plain = latents("")
    missed = {trace: (latents(trace) - plain).norm() for trace in (fitted, "reduce-steps{steps=3}")}
    assert missed[fitted] < 0.7 * missed["reduce-steps{steps=3}"]


def test_a_solver_is_fitted_under_a_guidance_window_to_the_guided_run(tiny_directory: Path) -> None:
    from diffopt.ir.description import build_module
    from diffopt.ir.source_directory import describe_directory

    module = build_module(describe_directory(tiny_directory))
    fitted = fit("solver", str(tiny_directory), steps=2, under="guidance-window{stop=0.5}")
    assert [made.name for made in Trace.parse(fitted)] == ["guidance-window", "fit-solver"]
    assert isinstance(run(Trace.parse(fitted), module), ModuleOp)


@pytest.mark.slow
def test_drift_is_measured_behind_other_passes(tiny_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["drift", str(tiny_directory), "--passes", "reduce-steps{steps=6}", "--threshold", "0.3"])
    (made,) = Trace.parse(capsys.readouterr().out.strip())
    assert isinstance(made, CacheAdaptive)
    assert made.threshold == 0.3
    assert made.drift.count(",") == 4
