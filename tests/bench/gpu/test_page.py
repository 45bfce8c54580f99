"""The page's tables are those of the kept results."""

from __future__ import annotations

import json
from pathlib import Path

from diffopt.bench.gpu.gather import gathered
from diffopt.bench.gpu.page import PAGE, RESULTS, roofline_s, tables, written

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_says_what_was_measured() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    found = json.loads((ROOT / RESULTS).read_text(encoding="utf-8"))
    assert written(page, tables(found)) == page


def test_a_spoiled_timing_is_kept_as_a_reason_alone(tmp_path: Path) -> None:
    arm = {"build_s": 1.0}
    model = {
        "arms": {"eager": arm},
        "problems": {},
        "rounds": [{"eager": 1.0}],
        "ratios": {},
        "logs": {"eager": "long"},
    }
    (tmp_path / "sdxl.json").write_text(json.dumps(model))
    (tmp_path / "flux.json").write_text(json.dumps(model))
    models = gathered(tmp_path, {"sdxl": "another was on the card"})["models"]
    assert models["flux"]["rounds"] == [{"eager": 1.0}]
    assert models["sdxl"] == {"arms": {"eager": arm}, "problems": {}, "untimed": "another was on the card"}


def test_the_roofline_counts_every_step_and_one_decoding() -> None:
    found = {"runs": {"1": {"ceilings": {"bf16_tflops": 100.0}}}}
    model = {"flops": {"unet": 1e12, "vae": 5e12}, "call": {"steps": 10}}
    assert roofline_s(found, model) == 0.15
