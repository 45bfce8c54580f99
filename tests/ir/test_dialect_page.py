"""The examples of docs/dialect.md parse, print and read back."""

from __future__ import annotations

import re
from pathlib import Path

from diffopt.ir.dialect import Diffusion
from diffopt.ir.identity import parse_module, print_module

FRAME = """builtin.module {{
  diffusion.component @unet = "diffusers.UNet2DConditionModel" {{
    {transform}
  }}
  {component}
  func.func @generate(%prompt: !diffusion.text, %seed: i64, %image: !diffusion.image, %mask: !diffusion.mask) {{
    {outside}
    %y = diffusion.denoise @scheduler steps 0 to 50 from %x0 {{
    ^bb0(%x: !diffusion.latent, %t: !diffusion.timestep):
      {inside}
    }}
    func.return
  }}
}}
"""
INSIDE = ("control", "predict", "guide", "step", "blend", "yield")


def test_every_example_of_the_page_reads_back(repository: Path) -> None:
    page = (repository / "docs" / "dialect.md").read_text(encoding="utf-8")
    found = re.findall(r"^\|[^|]*\| `(.*)` \|$", page, re.MULTILINE)
    kinds = [re.search(r"diffusion\.(\w+)", line)[1] for line in found]  # type: ignore[index]
    pairs = list(zip(kinds, found, strict=True))
    text = FRAME.format(
        transform="".join(line for kind, line in pairs if kind == "transform"),
        component="".join(line for kind, line in pairs if kind == "component"),
        outside="\n    ".join(line for kind, line in pairs if kind not in (*INSIDE, "transform", "component")),
        inside="\n      ".join(line for kind, line in pairs if kind in INSIDE),
    )
    printed = print_module(parse_module(text))
    assert print_module(parse_module(printed)) == printed
    assert {op.name.removeprefix("diffusion.") for op in Diffusion.operations} - {"denoise"} <= set(kinds)
    assert all(f"diffusion.{kind}" in printed for kind in kinds)
