"""Generated pages are those that the registry gives now, and no pair of passes is without an answer."""

from __future__ import annotations

import json

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
    assert "`scheme`: `int8-weights` or `int8-dynamic`" in text
    assert "at most one `weights`" in text
    assert "| 0.9 |" in text


@pytest.mark.slow
def test_the_page_of_pairs_is_current_and_each_pair_has_an_answer() -> None:
    found = pairs.verdicts(pairs.standard_module())
    assert len(found) == len(registry()) ** 2
    for verdict in found.values():
        if isinstance(verdict, Refusal):
            assert len(verdict.reason.split()) >= 3
            assert verdict.where.split()[0] in registry()
    ran = json.loads(pairs.RESULTS.read_text(encoding="utf-8")) if pairs.RESULTS.is_file() else {}
    assert pairs.PAGE.read_text(encoding="utf-8") == pairs.page(found, ran), "run python -m diffopt.pairs"
