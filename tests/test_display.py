from __future__ import annotations

from itertools import count

import pytest

from diffopt.display import SILENCE_S, Display, front_line
from diffopt.events import Asked, Decided, Deciding, Progress, Stage, Told
from diffopt.search.records import Candidate
from diffopt.search.study.synthetic import measured


def test_the_front_is_shown_fastest_first_without_what_another_betters() -> None:
    line = front_line([measured(2.0, 60.0), measured(10.0, 40.0), measured(1.5, 50.0), measured(4.0, 55.0)])
    assert line == "front  10.0x 40 dB  4.0x 55 dB  2.0x 60 dB"


def test_a_long_front_is_cut_and_an_empty_one_is_nothing() -> None:
    line = front_line([measured(1.0 + n, 70.0 - n) for n in range(9)], most=2)
    assert line == "front  9.0x 62 dB  8.0x 63 dB  and 7 more"
    assert front_line([]) == ""


def test_where_there_is_no_terminal_every_stage_and_candidate_is_a_line_as_it_begins_and_no_silence_is_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ticks = count()
    candidate = Candidate(7, "export{backend=openvino}", "key", "rules", {})
    with Display(clock=lambda: next(ticks) * SILENCE_S / 4) as show:
        show(Stage("searching for 40 candidates"))
        show(Asked(candidate))
        for pair in range(6):
            show(Progress("pairs", pair, 6))
        show(Told(candidate, measured(2.0, 60.0)))
        show(Stage("nothing met the goal on held-out prompts; trying what changes least"))
        show(Deciding("", "compile"))
        show(Decided("", "compile", measured(2.0, 60.0)))
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert lines[:3] == [
        "searching for 40 candidates",
        "7  export{backend=openvino}: measuring",
        "7  export{backend=openvino}: pairs 3/6",
    ]
    assert lines[3].startswith("7    2.00x [")
    assert lines[4].startswith("nothing met the goal")
    assert lines[5] == "compile: measuring"
    assert lines[6].endswith("compile")
