"""Train demo:shapes-v: v-prediction, zero terminal signal (Lin et al., 2023), trailing steps, linear projections.

It learns from demo:shapes, whose weights it starts from: the deepest level keeps two channels of three.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffopt.bench.models.learning.inherit import fit_times, inherit, same_noise
from diffopt.bench.models.learning.objective import taught
from diffopt.bench.models.learning.stable_diffusion import StableDiffusionRecipe, trained_unet
from diffopt.bench.models.shapes import parts as shapes_parts

if TYPE_CHECKING:
    import torch
    from torch import nn

    from diffopt.bench.models.learning.drawing_pool import Drawn
    from diffopt.bench.models.learning.feed import Feed
    from diffopt.bench.models.learning.loop import Say, Stop
    from diffopt.bench.models.learning.recipe import Parts


@dataclass(frozen=True)
class VRecipe(StableDiffusionRecipe):
    """See `Recipe`."""

    name: str = "v"
    component: str = "unet"
    pool: str = "shapes"
    batch: int = 64
    rate: float = 1e-3
    seed: int = 34
    decay: float = 0.99

    def scheduler(self) -> Any:
        """See `StableDiffusionRecipe`."""
        from diffusers import DDIMScheduler

        return DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,  # of no effect with trailing steps, but the pipeline insists
            timestep_spacing="trailing",
            rescale_betas_zero_snr=True,
        )

    def prepare(self, drawn: Drawn, parts: Parts, device: torch.device, seconds: float, say: Say, stop: Stop) -> float:
        """See `Recipe`."""
        started = time.monotonic()
        teacher = trained_unet(device)
        inherit(parts["unet"], teacher)
        left = fit_times(parts["unet"], teacher, self.teacher_times(device))
        say(f"weights of demo:shapes taken over; {100 * left:.2f} % of the time embedding is not met")
        return seconds - (time.monotonic() - started)

    def feed(self, drawn: Drawn, parts: Parts, device: torch.device) -> Feed:
        """See `Recipe`."""
        made = super().feed(drawn, parts, device)
        made.constants["times"] = self.teacher_times(device)
        return made

    def loss(self, network: nn.Module, feed: Feed) -> torch.Tensor:
        """See `Recipe`."""
        drawn, teacher = feed.draw(self.batch), trained_unet(feed.clean.device)
        said = self.asked(teacher, drawn)

        def teach(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            return said(noisy, feed.constants["times"][times])

        return taught(self.asked(network, drawn), teach, drawn["clean"], feed.constants["alphas"])

    def teacher_times(self, device: torch.device) -> torch.Tensor:
        """Return the step of demo:shapes that is as noisy as each step here, [1000]."""
        return same_noise(self.scheduler().alphas_cumprod, shapes_parts.new_scheduler().alphas_cumprod).to(device)


RECIPE = VRecipe()
