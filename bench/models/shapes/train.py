"""Train demo:shapes again: `python -m diffopt.bench.models.shapes.train --stage all`."""

from __future__ import annotations

import argparse
import time
from importlib import import_module

STAGES = {
    "tokenizer": "train_tokenizer:run",
    "scorer": "train_scorer:run",
    "vae": "train_vae:run",
    "text": "train_text:run",
    "unet": "train_unet:run",
    "decoder": "train_vae:run_decoder",
    "evaluate": "evaluate:run",
}
"""Stage to the module and function that runs it, in the order of `all`."""


def main() -> None:
    """Run one stage, or all of them in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=[*STAGES, "all"], default="all")
    stage = parser.parse_args().stage
    for name in STAGES if stage == "all" else [stage]:
        module, function = STAGES[name].split(":")
        start = time.monotonic()
        getattr(import_module(f"diffopt.bench.models.shapes.{module}"), function)()
        from diffopt.bench.models.shapes.training import log

        log(name, f"stage done in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
