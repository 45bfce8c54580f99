"""Generated pages are those that the registry gives now, and no pair of passes is without an answer."""

from __future__ import annotations

import pytest

from diffopt import catalogue_page, pairs
from diffopt.passes.base import Refusal, registry


def test_the_page_of_passes_is_current() -> None:
    written = catalogue_page.PAGE.read_text(encoding="utf-8")
    assert written == catalogue_page.page(catalogue_page.measurements()), "run python -m diffopt.catalogue_page"


def test_each_pass_has_its_row_its_options_and_its_rules() -> None:
    text = catalogue_page.page({"passes": {"quantize": "0.9"}, "environment": "here"})
    for name in registry():
        assert f"| [{name}](#{name}) |" in text
        assert f"\n## {name}\n" in text
    assert "`scheme`: `int8-weights` or `int8-dynamic` or `int4-weights`" in text
    assert "at most one `weights`" in text
    assert "| 0.9 |" in text


@pytest.mark.slow
def test_the_page_of_pairs_is_current_and_each_pair_has_an_answer() -> None:
    found = pairs.all_verdicts()
    for verdict in (verdict for verdicts in found.values() for verdict in verdicts.values()):
        if isinstance(verdict, Refusal):
            assert len(verdict.reason.split()) >= 3
            assert verdict.where.split()[0] in registry()
    for model, verdicts in found.items():
        assert len(verdicts) == len(registry()) ** 2
        assert not pairs.read_results()[model]["crashed"]
    assert pairs.PAGE.read_text(encoding="utf-8") == pairs.page(found, pairs.read_results()), (
        "run python -m diffopt.pairs"
    )
