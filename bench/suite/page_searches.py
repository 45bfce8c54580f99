"""The part of the page that shows searches: targets, and every arm at every budget beside the bars."""

from __future__ import annotations

from diffopt.bench.suite.searches import Searches


def lines_of(found: Searches) -> list[str]:
    return [str(found.targets)]
