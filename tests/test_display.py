from __future__ import annotations

from diffopt.display import front_line
from diffopt.search.study.synthetic import measured


def test_the_front_is_shown_fastest_first_without_what_another_betters() -> None:
    line = front_line([measured(2.0, 60.0), measured(10.0, 40.0), measured(1.5, 50.0), measured(4.0, 55.0)])
    assert line == "front  10.0x 40 dB  4.0x 55 dB  2.0x 60 dB"


def test_a_long_front_is_cut_and_an_empty_one_is_nothing() -> None:
    line = front_line([measured(1.0 + n, 70.0 - n) for n in range(9)], most=2)
    assert line == "front  9.0x 62 dB  8.0x 63 dB  and 7 more"
    assert front_line([]) == ""
