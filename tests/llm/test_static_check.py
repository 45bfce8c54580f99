"""Reading generated code finds what it may not hold, with its line; it is hygiene, the sandbox is the wall."""

from __future__ import annotations

import pytest

from diffopt.llm.static_check import problems

RIGHT = 'import re\n\nA = re.compile("x")\nB: int = 1\n\n\ndef transform(source: str) -> str:\n    return A.sub("", source)\n'


def test_right_code_has_no_problems() -> None:
    assert problems(RIGHT) == ()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os\n" + RIGHT, "line 1: os may not be imported"),
        ("from libcst.tool import main\n" + RIGHT, "libcst.tool may not be imported"),
        ("from . import x\n" + RIGHT, "may not be imported"),
        (RIGHT + "\nx = open('/etc/passwd')\n", "open may not be used"),
        (RIGHT + "\nSEEN = []\n", "constants only"),
        (RIGHT + "\nprint(1)\n", "constants only"),
        (RIGHT + "\ndef f():\n    global B\n    B = 2\n", "no state of the module"),
        (RIGHT + "\ndef f():\n    return ().__class__.__base__\n", ".__class__ is private"),
        (
            RIGHT + "\ndef f():\n    try:\n        return 1\n    except Exception:\n        pass\n",
            "may not be passed over",
        ),
        (RIGHT + "\ndef f(x):\n    return getattr(x, 'y')\n", "getattr may not be used"),
        (RIGHT + "\nasync def f():\n    pass\n", "asynchronous"),
        ("def other(source):\n    return source\n", "no function transform"),
        ("def transform(a, b):\n    return a\n", "takes one argument"),
        ("def transform(source:\n", "not Python"),
        ("x = " + "(" * 300 + ")" * 300, "not Python"),
        (RIGHT + "\ndef f(x):\n    return " + "-" * 60 + "x\n", "nested deeper"),
        ("#" * 20_001, "more than 20000"),
        ("\0", "not Python"),
    ],
)
def test_what_it_may_not_hold_is_said(code: str, said: str) -> None:
    assert said in "\n".join(problems(code))


def test_a_method_may_call_its_parents_and_its_own() -> None:
    code = RIGHT + (
        "\n\nclass A:\n    def __init__(self):\n        super().__init__()\n        self._found = 0\n"
        "\n    def more(self):\n        return self._found\n"
    )
    assert problems(code) == ()
