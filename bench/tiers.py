"""Which promise a candidate's images keep: the thresholds, fixed before a search and written into its manifest."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from diffopt.bench.outcome import Fidelity

TIERS = ("exact", "near", "traded", "changed")
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Thresholds:
    """The tiers, strongest first; PSNR in dB, accuracies as shares of 1.

    * exact: what near asks, and the teacher-forced error of the denoiser at every step, by the dtype the user deploys:
      `exact_error_float32` is the rounding unit of TF32, the coarsest arithmetic that hardware still calls float32;
      `exact_error_half` a few rounding units of bfloat16. Where the steps run inside an engine and the denoiser cannot
      be asked, the images have to agree instead, far below one grey level: `exact_psnr_p10`.
    * near: median and worst tenth of PSNR, and prompt accuracy.
    * traded: prompt accuracy, and feature distance not above what two seeds of the baseline show. Without a scorer
      nobody reads the prompts back, and paired metrics have to hold too: `unscored_psnr_median`, `unscored_psnr_p10` and
      `unscored_ssim_median` (about what published four-bit models reach, and stricter than most caches).
    * changed: anything else.

    Accuracy counts downwards only: better than the baseline is within any threshold. Without a scorer the accuracy
    parts of `exact` and `near` fall away.
    """

    exact_psnr_p10: float = 80.0
    exact_error_float32: float = 1e-3
    exact_error_half: float = 1e-2
    near_psnr_median: float = 35.0
    near_psnr_p10: float = 30.0
    near_accuracy_drop: float = 0.01
    traded_accuracy_drop: float = 0.02
    unscored_psnr_median: float = 25.0
    unscored_psnr_p10: float = 20.0
    unscored_ssim_median: float = 0.85

    def tier(self, fidelity: Fidelity) -> str:
        """Return the strongest tier whose promise the images keep."""
        drop = _drop(fidelity)
        close = fidelity.psnr_median >= self.near_psnr_median and fidelity.psnr_p10 >= self.near_psnr_p10
        if close and drop <= self.near_accuracy_drop + _ROUNDING:
            return "exact" if self._is_exact(fidelity) else "near"
        return "traded" if self._is_traded(fidelity, drop) else "changed"

    def missing(self, fidelity: Fidelity) -> str:
        """Say what keeps the images from the next stronger tier, in numbers; empty for `exact`."""
        tier, drop = self.tier(fidelity), _drop(fidelity)
        wanted = {"near": "exact", "traded": "near", "changed": "traded"}.get(tier, "")
        allowed = self.traded_accuracy_drop if wanted == "traded" else self.near_accuracy_drop
        median, tenth = {
            "exact": (0.0, self.exact_psnr_p10),
            "near": (self.near_psnr_median, self.near_psnr_p10),
            "traded": (self.unscored_psnr_median, self.unscored_psnr_p10),
        }.get(wanted, (0.0, 0.0))
        found = []
        error = fidelity.denoiser_error
        if wanted == "exact" and error is not None:
            tenth = 0.0
            if error > self.exact_error(fidelity.denoiser_dtype):
                allowed_error = self.exact_error(fidelity.denoiser_dtype)
                found.append(f"denoiser off by {100 * error:.2g} % (at most {100 * allowed_error:g} %)")
        if drop > allowed + _ROUNDING:
            found.append(f"{100 * drop:.1f} points fewer prompts right (at most {100 * allowed:g})")
        distance, seeds = fidelity.feature_distance, fidelity.seed_distance
        if wanted == "traded" and distance is not None and seeds is not None and distance > seeds:
            found.append(f"features {distance:.3g} from the baseline's (another seed: {seeds:.3g})")
        if wanted != "traded" or fidelity.prompt_accuracy is None or distance is None or seeds is None:
            if fidelity.psnr_median < median:
                found.append(f"median {fidelity.psnr_median:.1f} dB (at least {median:g})")
            if fidelity.psnr_p10 < tenth:
                found.append(f"worst tenth {fidelity.psnr_p10:.1f} dB (at least {tenth:g})")
            if wanted == "traded" and fidelity.ssim_median < self.unscored_ssim_median:
                found.append(f"SSIM {fidelity.ssim_median:.3f} (at least {self.unscored_ssim_median:g})")
        return f"not {wanted}: {', '.join(found)}" if found else ""

    def to_json(self) -> dict[str, float]:
        """Return plain JSON data for the manifest."""
        return dataclasses.asdict(self)

    def exact_error(self, dtype: str) -> float:
        """Return the largest error of the denoiser that is within the rounding of its deployed dtype."""
        return self.exact_error_half if dtype in ("float16", "bfloat16") else self.exact_error_float32

    def _is_exact(self, fidelity: Fidelity) -> bool:
        if fidelity.denoiser_error is None:
            return fidelity.psnr_p10 >= self.exact_psnr_p10
        return fidelity.denoiser_error <= self.exact_error(fidelity.denoiser_dtype)

    def _is_traded(self, fidelity: Fidelity, drop: float) -> bool:
        known = fidelity.feature_distance is not None and fidelity.seed_distance is not None
        if known and (fidelity.feature_distance or 0.0) > (fidelity.seed_distance or 0.0):
            return False
        if known and fidelity.prompt_accuracy is not None:
            return drop <= self.traded_accuracy_drop + _ROUNDING
        return (
            drop <= self.traded_accuracy_drop + _ROUNDING
            and fidelity.psnr_median >= self.unscored_psnr_median
            and fidelity.psnr_p10 >= self.unscored_psnr_p10
            and fidelity.ssim_median >= self.unscored_ssim_median
        )


def _drop(fidelity: Fidelity) -> float:
    if fidelity.prompt_accuracy is None or fidelity.baseline_prompt_accuracy is None:
        return 0.0
    return fidelity.baseline_prompt_accuracy - fidelity.prompt_accuracy
