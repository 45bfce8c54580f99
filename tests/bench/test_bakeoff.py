from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffopt.bench.bakeoff import __main__ as command
from diffopt.bench.bakeoff.contender import versions
from diffopt.bench.bakeoff.page import END, START, best, share, table, write_page
from diffopt.bench.matmul_ceiling import matmul_ceilings

ROW: dict[str, Any] = {
    "model": "demo:shapes", "component": "unet", "backend": "openvino", "precision": "bf16", "ratio": 4.0, "lo": 3.9, "hi": 4.1,
    "pairs": 40, "eager_ms": 12.0, "engine_ms": 3.0, "gflop": 0.3, "ceilings": {"f32": 100.0, "bf16": 200.0}, "build_s": 3.0,
    "first_call_s": 0.2, "bytes": 11_000_000, "peak_bytes": 400_000_000, "max_error": [0.1, 0.2, 0.1],
    "relative_l2_error": [4e-3, 5e-3, 4e-3],
}  # fmt: skip


def test_a_share_of_the_ceiling_is_of_the_engines_own_precision() -> None:
    assert share(ROW) == pytest.approx(0.5)  # 0.3 GFLOP in 3 ms are 100 GFLOP/s
    assert share({**ROW, "precision": "int8-dynamic"}) == pytest.approx(1.0)


def test_the_best_engine_is_the_fastest_of_those_that_are_near_enough() -> None:
    coarse = {**ROW, "backend": "fast", "ratio": 9.0, "relative_l2_error": [1e-3, 0.2, 1e-3]}
    slow, broken = {**ROW, "backend": "slow", "ratio": 2.0}, {**ROW, "backend": "broken", "failed": "no"}
    found = best([slow, coarse, ROW, broken])
    assert {place: row["backend"] for place, row in found.items()} == {("demo:shapes", "unet"): "openvino"}


def test_every_row_has_as_many_cells_as_the_head_and_a_failure_says_why() -> None:
    lines = table([ROW, {"component": "unet", "backend": "tensorrt", "precision": "bf16", "failed": "not here"}])
    assert len({line.count("|") for line in lines}) == 1
    assert "not here" in lines[-1]


def test_the_tables_stand_between_the_marks_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}old\n{END}after\n")
    found = {"machine": {"environment": {"cores": 1}, "versions": {"torch": "2"}}, "rows": [ROW]}
    for _ in range(2):
        write_page(page, found)
        text = page.read_text()
        assert text.startswith(f"before\n{START}1 core, torch 2;")
        assert text.endswith(f"|\n{END}after\n")
        assert "old" not in text


def test_goes_on_with_what_is_not_measured_yet(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    failed = {**ROW, "component": "vae_decoder", "failed": "not built"}
    found = {"machine": {"versions": versions()}, "rows": [ROW, failed]}
    results.write_text(json.dumps(found))
    assert list(command._measured(results)) == [("demo:shapes", "unet", "openvino", "bf16")]
    results.write_text(json.dumps({**found, "machine": {"versions": {"torch": "1"}}}))
    assert not command._measured(results)


@pytest.mark.slow
def test_a_component_is_built_and_raced_and_then_not_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "results.json"
    asked = ["", "--engines", str(tmp_path), "--results", str(results), "--model", "demo:shapes"]
    asked += ["--component", "text_encoder", "--backend", "openvino"]
    for more in (["--build"], [], []):
        monkeypatch.setattr("sys.argv", [*asked, *more])
        assert command.main() == 0
        before, written = (results.stat().st_mtime_ns, results.read_text()) if results.exists() else (0, "")
    rows = json.loads(written)["rows"]
    assert [(row["precision"], row["pairs"] >= 10) for row in rows] == [("f32", True), ("bf16", True)]
    assert max(rows[0]["relative_l2_error"]) < 1e-4
    assert 1e-3 < rows[0]["gflop"] < 1
    assert results.stat().st_mtime_ns == before


def test_the_ceiling_counts_the_operations_of_a_square_product() -> None:
    ticks = iter(range(100))
    found = matmul_ceilings(repeats=3, size=10, clock=lambda: float(next(ticks)))
    assert found == {"f32": 2000 / 1e9, "bf16": 2000 / 1e9}
