"""Which promise a candidate's images keep: the thresholds, fixed before a search and written into its manifest."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from diffopt.bench.outcome import Fidelity

TIERS = ("exact", "near", "traded", "changed")
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Thresholds:
    """The tiers, strongest first; PSNR in dB, accuracies as shares of 1. Each but the last asks what the next one asks.

    * exact: the teacher-forced error of the denoiser at every step, by the dtype the user deploys: `exact_error_float32` is
      the rounding unit of TF32, the coarsest arithmetic that hardware still calls float32; `exact_error_half` a few
      rounding units of bfloat16. Where the steps run inside an engine and the denoiser cannot be asked, the worst image
      has to agree far below one grey level instead: `exact_psnr_worst`.
    * near: median and worst tenth of PSNR, and prompt accuracy. The images are nearer than those of another seed of the
      baseline: the median by `near_above_seeds` (3 dB is half the squared error), the worst tenth at all.
    * traded: prompt accuracy, and feature distance not above what two seeds of the baseline show. Without a scorer
      nobody reads the prompts back, and paired metrics have to hold too: `unscored_psnr_median`, `unscored_psnr_p10` and
      `unscored_ssim_median` (about what published four-bit models reach, and stricter than most caches).
    * changed: anything else.

    Accuracy counts downwards only: better than the baseline is within any threshold. What is not known asks nothing.
    """

    exact_psnr_worst: float = 80.0
    exact_error_float32: float = 1e-3
    exact_error_half: float = 1e-2
    near_psnr_median: float = 35.0
    near_psnr_p10: float = 30.0
    near_above_seeds: float = 3.0
    near_accuracy_drop: float = 0.01
    traded_accuracy_drop: float = 0.02
    unscored_psnr_median: float = 25.0
    unscored_psnr_p10: float = 20.0
    unscored_ssim_median: float = 0.85

    def tier(self, fidelity: Fidelity) -> str:
        """Return the strongest tier whose promise the images keep."""
        asked = {"exact": self._exact, "near": self._near, "traded": self._traded}
        return next((tier for tier in TIERS[:-1] if not asked[tier](fidelity)), "changed")

    def missing(self, fidelity: Fidelity) -> str:
        """Say what keeps the images from the next stronger tier, in numbers; empty for `exact`."""
        asked = {"near": self._exact, "traded": self._near, "changed": self._traded}
        tier = self.tier(fidelity)
        if tier == "exact":
            return ""
        return f"not {TIERS[TIERS.index(tier) - 1]}: {', '.join(asked[tier](fidelity))}"

    def to_json(self) -> dict[str, float]:
        """Return plain JSON data for the manifest."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, float]) -> Thresholds:
        """Read what `to_json` wrote, now or before teacher forcing; what an older manifest did not ask is not asked.

        Raises:
            TypeError: a threshold is unknown.
        """
        if "exact_error_float32" in data:
            return Thresholds(**data)
        old = {"exact_psnr_worst": data.get("exact_psnr_p10", 0.0), "near_above_seeds": -math.inf}
        kept = {name: value for name, value in data.items() if name != "exact_psnr_p10"}
        return Thresholds(**old, **kept, exact_error_float32=math.inf, exact_error_half=math.inf)

    def exact_error(self, dtype: str) -> float:
        """Return the largest error of the denoiser that is within the rounding of its deployed dtype."""
        return self.exact_error_half if dtype in ("float16", "bfloat16") else self.exact_error_float32

    def _exact(self, fidelity: Fidelity) -> list[str]:
        """Say what is missing, as the next two do."""
        found, error, limit = self._near(fidelity), fidelity.denoiser_error, self.exact_error(fidelity.denoiser_dtype)
        if error is not None:
            if error > limit:
                found.append(f"denoiser off by {100 * error:.2g} % (at most {100 * limit:g} %)")
        elif fidelity.psnr_worst < self.exact_psnr_worst:
            found.append(f"worst image {fidelity.psnr_worst:.1f} dB (at least {self.exact_psnr_worst:g})")
        return found

    def _near(self, fidelity: Fidelity) -> list[str]:
        seeds = fidelity.seed_psnr_median
        median, tenth = self.near_psnr_median, self.near_psnr_p10
        if seeds is not None:
            median, tenth = (
                max(median, seeds + self.near_above_seeds),
                max(tenth, min(seeds, seeds + self.near_above_seeds)),
            )
        return [
            *_fewer_right(fidelity, self.near_accuracy_drop),
            *_features(fidelity),
            *_below("median", fidelity.psnr_median, median),
            *_below("worst tenth", fidelity.psnr_p10, tenth),
        ]

    def _traded(self, fidelity: Fidelity) -> list[str]:
        found = [*_fewer_right(fidelity, self.traded_accuracy_drop), *_features(fidelity)]
        if None not in (fidelity.prompt_accuracy, fidelity.feature_distance, fidelity.seed_distance):
            return found
        found += _below("median", fidelity.psnr_median, self.unscored_psnr_median)
        found += _below("worst tenth", fidelity.psnr_p10, self.unscored_psnr_p10)
        if fidelity.ssim_median < self.unscored_ssim_median:
            found.append(f"SSIM {fidelity.ssim_median:.3f} (at least {self.unscored_ssim_median:g})")
        return found


def _fewer_right(fidelity: Fidelity, allowed: float) -> list[str]:
    if fidelity.prompt_accuracy is None or fidelity.baseline_prompt_accuracy is None:
        return []
    drop = fidelity.baseline_prompt_accuracy - fidelity.prompt_accuracy
    if drop <= allowed + _ROUNDING:
        return []
    return [f"{100 * drop:.1f} points fewer prompts right (at most {100 * allowed:g})"]


def _features(fidelity: Fidelity) -> list[str]:
    distance, seeds = fidelity.feature_distance, fidelity.seed_distance
    if distance is None or seeds is None or distance <= seeds:
        return []
    return [f"features {distance:.3g} from the baseline's (another seed: {seeds:.3g})"]


def _below(name: str, value: float, least: float) -> list[str]:
    return [] if value >= least else [f"{name} {value:.1f} dB (at least {least:.3g})"]
