"""`diffopt doctor`: lint scripts that use diffusers; nothing of them is run."""

from __future__ import annotations

from diffopt.doctor.command import add_arguments, run

__all__ = ["TEXT", "add_arguments", "run"]

TEXT = "lint scripts that use diffusers; nothing of them is run"
