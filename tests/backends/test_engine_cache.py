from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from diffopt.backends import EngineKey
from diffopt.backends.engine_cache import set_limit, trim
from diffopt.backends.engine_store import open_engine

KEY = EngineKey("openvino", "w", [], [], {}, {}, "cpu-0")


def make(engines: Path, name: str, size: int = 1000) -> str:
    """Build an engine of about this many bytes, or load it again; return its folder's name."""
    key = replace(KEY, weights=name)

    def build(folder: Path) -> dict[str, int]:
        (folder / "model.bin").write_bytes(b"x" * size)
        return {}

    open_engine(engines, key, build, lambda folder: None)
    return key.hash


def age(engines: Path, name: str, seconds: float) -> None:
    manifest = engines / name / "engine.json"
    moment = manifest.stat().st_mtime - seconds
    os.utime(manifest, (moment, moment))


def names(engines: Path) -> set[str]:
    return {path.name for path in engines.iterdir() if path.is_dir()}


def test_without_a_bound_nothing_goes(tmp_path: Path) -> None:
    made = {make(tmp_path, name) for name in "abc"}
    assert trim(tmp_path, keep="") == []
    assert names(tmp_path) == made


def test_the_one_unused_for_longest_goes_first(tmp_path: Path) -> None:
    set_limit(tmp_path, 3500)
    first, second = make(tmp_path, "a"), make(tmp_path, "b")
    age(tmp_path, first, 100)
    age(tmp_path, second, 50)
    assert make(tmp_path, "a") == first  # used again, so the other one is the oldest
    third = make(tmp_path, "c")
    assert names(tmp_path) == {first, third}


def test_the_engine_just_built_stays_however_large_it_is(tmp_path: Path) -> None:
    set_limit(tmp_path, 10)
    make(tmp_path, "a")
    last = make(tmp_path, "b")
    assert names(tmp_path) == {last}


def test_a_bound_can_be_taken_away(tmp_path: Path) -> None:
    set_limit(tmp_path, 10)
    set_limit(tmp_path, None)
    assert names(tmp_path) == set()
    assert {make(tmp_path, name) for name in "ab"} == names(tmp_path)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(0, 5000), min_size=1, max_size=5), limit=st.integers(0, 12000))
def test_a_folder_is_within_its_bound_or_holds_the_last_engine_alone(
    tmp_path_factory: object, sizes: list[int], limit: int
) -> None:
    engines: Path = tmp_path_factory.mktemp("engines")  # type: ignore[attr-defined]
    set_limit(engines, limit)
    last = ""
    for index, size in enumerate(sizes):
        last = make(engines, str(index), size)
    total = sum(path.stat().st_size for path in engines.rglob("*") if path.is_file() and path.name != "limit.json")
    assert total <= limit or names(engines) == {last}
