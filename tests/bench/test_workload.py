from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffopt.bench.workload import DEFAULT_PROMPTS, Workload, default_workload, load_prompts, split_prompts
from diffopt.ir.errors import DiffoptError


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return tmp_path / "prompts.txt"


def test_reads_one_prompt_a_line_without_comments_and_empty_lines(prompts: Path) -> None:
    prompts.write_text("# mine\na cat\n\n  a dog  \na fish\na bird\n")
    assert load_prompts(prompts) == ("a cat", "a dog", "a fish", "a bird")


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        (b"a cat\na dog\na cat\na bird\n", ":3", "same prompt as in line 1"),
        (b"a cat\n" + b"x" * 2001 + b"\n", ":2", "2001 characters"),
        (b"a cat\n", "prompts.txt: ", "1 prompts"),
        (b"\xff\xfe", "prompts.txt: ", "not UTF-8"),
        (None, "prompts.txt: ", "No such file"),
    ],
)
def test_a_bad_prompt_file_is_one_line_that_says_where(
    prompts: Path, content: bytes | None, place: str, message: str
) -> None:
    if content is not None:
        prompts.write_bytes(content)
    with pytest.raises(DiffoptError) as caught:
        load_prompts(prompts)
    assert place in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.lists(st.text(), min_size=2, max_size=50, unique=True), st.integers(0, 99), st.floats(0, 1))
def test_a_split_is_disjoint_whole_and_never_empty(prompts: list[str], seed: int, share: float) -> None:
    search, heldout = split_prompts(prompts, seed=seed, heldout=share)
    assert search
    assert heldout
    assert sorted(search + heldout) == sorted(prompts)
    assert split_prompts(prompts, seed=seed, heldout=share) == (search, heldout)


def test_an_unknown_model_gets_plain_captions_half_of_them_held_out() -> None:
    workload = default_workload(height=64, width=64)
    assert len(workload.prompts) == len(workload.heldout) == len(DEFAULT_PROMPTS) // 2
    assert len(set(DEFAULT_PROMPTS)) == len(DEFAULT_PROMPTS)


def test_seeds_are_fixed_and_differ_between_splits_and_draws() -> None:
    workload = default_workload(height=64, width=64)
    assert workload.seeds("search") == workload.seeds("search")
    every = [*workload.seeds("search"), *workload.seeds("heldout"), *workload.seeds("search", draw=1)]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompts": (), "heldout": ("a",)}, {"prompts": ("a",), "heldout": ()}, {"prompts": ("a",), "heldout": ("a",)},
        {"prompts": ("a",), "heldout": ("b",), "batch": 0},
    ],
)  # fmt: skip
def test_a_workload_that_cannot_be_measured_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(DiffoptError):
        Workload(**({"seed": 0, "height": 8, "width": 8} | fields))  # type: ignore[arg-type]
