from __future__ import annotations

from typing import Any

from diffopt.studies import page

CASE: dict[str, Any] = {
    "planted": "guidance-off", "passes": ["a", "b"], "verdict": "named", "named": True, "measured": 4, "allowed": 6.0,
    "step": 1, "layer": None, "note": "the step was left out",
}  # fmt: skip


def test_a_bar_in_a_cell_does_not_break_the_table() -> None:
    assert page._table(("a", "b"), [("x|y", 1)]) == ["| a | b |", "| --- | --- |", "| x/y | 1 |"]


def test_the_section_on_bisect_names_each_bad_pass() -> None:
    text = "\n".join(page.faults({"cases": {"0": CASE}}))
    assert "| `guidance-off` | 2 | named | 4 | 6.0 | step 2 | the step was left out |" in text


def test_the_section_on_stability_counts_tiers() -> None:
    study = {"runs": [{"x": {"ratio": [1.2, 1.1, 1.3]}}] * 3, "tiers": {"x": {"near": 2, "exact": 1}}}
    assert "near 2 times, exact 1 times | 1.20 to 1.20" in "\n".join(page.stability(study))
