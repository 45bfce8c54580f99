"""Write the model directory of a full-size architecture: `python -m diffopt.bench.models.fullsize sdxl DIRECTORY`."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffopt.bench.models.fullsize import NAMES, write_model

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", action="store_true", help="the same classes in a small size")
    parser.add_argument("--dtype", default="bfloat16")
    given = parser.parse_args()
    print(write_model(given.name, given.folder, small=given.small, dtype=given.dtype).name)
