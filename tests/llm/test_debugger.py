"""Mending is serial and bounded: three fixes, five starts, and no second question about the same mistake."""

from __future__ import annotations

from collections.abc import Iterator

from diffopt.llm.debugger import Effort, fingerprint, mend


class Model:
    """Writes numbers; `fix` adds one."""

    def __init__(self, starts: list[int | None]) -> None:
        self.starts: Iterator[int | None] = iter(starts)
        self.asked: list[str] = []

    def write(self) -> int | None:
        self.asked.append("write")
        return next(self.starts)

    def fix(self, piece: int, problem: str) -> int | None:
        self.asked.append(f"fix {problem}")
        return piece + 1


def test_a_piece_that_works_is_returned_at_once() -> None:
    model = Model([7])
    found = mend(model.write, model.fix, lambda piece: "")
    assert (found.piece, found.why, model.asked) == (7, "", ["write"])


def test_it_is_mended_until_it_passes_and_every_attempt_is_kept() -> None:
    model = Model([1])
    found = mend(model.write, model.fix, lambda piece: "" if piece == 3 else f"problem {'x' * piece}")
    assert found.piece == 3
    assert [(a.start, a.fix, a.piece) for a in found.attempts] == [(0, 0, 1), (0, 1, 2), (0, 2, 3)]
    assert model.asked == ["write", "fix problem x", "fix problem xx"]


def test_after_three_fixes_it_starts_again_and_after_five_starts_it_gives_up() -> None:
    model = Model([10 * n for n in range(5)])
    found = mend(model.write, model.fix, lambda piece: "wrong: " + "abcdefghij"[piece % 10])
    assert found.piece is None
    assert found.why == "wrong: d"
    assert model.asked.count("write") == 5
    assert len(model.asked) == 5 * 4
    assert len(found.attempts) == 5 * 4


def test_the_same_mistake_again_ends_a_start() -> None:
    model = Model([1, 2])
    found = mend(
        model.write, model.fix, lambda piece: f"no attribute at 0x{piece:x} in /tmp/{piece}.py:{piece}", Effort(3, 2)
    )
    assert [a.start for a in found.attempts] == [0, 0, 1, 1]


def test_no_piece_is_an_end_and_not_an_endless_question() -> None:
    model = Model([None])
    found = mend(model.write, model.fix, lambda piece: "")
    assert (found.piece, found.why, found.attempts, model.asked) == (None, "no piece was written", (), ["write"])


def test_numbers_paths_and_addresses_do_not_make_another_mistake() -> None:
    assert fingerprint("KeyError: 3 at 0xdead in /a/b.py:12") == fingerprint("KeyError: 41 at 0xbeef in /c/d.py:7")
    assert fingerprint("KeyError: 3") != fingerprint("IndexError: 3")
