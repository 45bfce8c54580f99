"""The laws of a generated pass, checked from outside: what it says of itself holds on files it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from diffopt.llm import emitted_check, static_check
from diffopt.llm.generated import FUNCTION, GeneratedPass
from diffopt.llm.sandbox import PRELOAD, Limits, Ran, run

OTHERS: Final = (
    "",
    "# nothing but a comment\n",
    'print("hello")\n',
    "import os\n\n\ndef load(  a,b = 2 ):\n\treturn {'a':a ,  'b' : b}   # odd, and to be left so\n",
    "from diffusers import FluxPipeline\n\npipe = FluxPipeline.from_pretrained('x')\nimage = pipe('a cat').images[0]\n",
    "class Model:\n    def forward(self, x):\n        return x if x else [y for y in (x,)]\n",
)
"""Files of others, most without what a pass looks for."""

_EACH = f"\n\ndef _each(texts):\n    return [{FUNCTION}(text) for text in texts]\n"


@dataclass(frozen=True)
class Verdict:
    """Whether a pass keeps the laws, and how it was confined while that was found out.

    Args:
        broken: one sentence a law that does not hold; empty where all do.
        stage: where it ended: `static` (nothing was run), `sandbox`, `laws`, or `kept`.
    """

    stage: str
    broken: tuple[str, ...]
    level: int | None
    guards: tuple[str, ...] = ()
    log: str = ""

    @property
    def ok(self) -> bool:
        """Whether every law holds."""
        return not self.broken


def check(written: GeneratedPass, targets: Sequence[str], limits: Limits | None = None) -> Verdict:
    """Check a pass on the files it is for and on files it is not for.

    Args:
        targets: emitted files; at least one holds the pattern and is to change.
    """
    found = static_check.problems(written.code)
    if found:
        return Verdict("static", found, None)
    texts = [*targets, *OTHERS]
    once = rewrite_each(written.code, texts, limits, hash_seed=1)
    if isinstance(once, Ran):
        return _ended(once)
    answers, ran = once
    # In another order, from another seed of hashes, in another process: the same texts, or it depends on more than them.
    again = rewrite_each(written.code, texts[::-1], limits, hash_seed=2)
    if isinstance(again, Ran):
        return _ended(again)
    broken = [
        *(["it is not deterministic: another process gave another text"] if answers != again[0][::-1] else []),
        *_on_targets(written, targets, answers),
    ]
    for text, answer in zip(texts, answers, strict=True):
        if written.pattern not in text and answer != text:
            broken.append(f"it changes a file without its pattern {written.pattern!r}")
    if not broken and written.idempotent:
        twice = rewrite_each(written.code, answers, limits, hash_seed=1)
        if isinstance(twice, Ran):
            return _ended(twice)
        broken += ["doing it twice is not doing it once"] if twice[0] != answers else []
    return Verdict("laws" if broken else "kept", tuple(dict.fromkeys(broken)), ran.level, ran.guards, ran.log)


def rewrite_each(
    code: str, texts: Sequence[str], limits: Limits | None = None, *, hash_seed: int = 0
) -> tuple[list[str], Ran] | Ran:
    """Put each text through the code, in one confined process; return the texts, or how it went wrong."""
    preload = (*PRELOAD, "libcst.matchers") if "matchers" in code else PRELOAD
    ran = run(code + _EACH, "_each", [list(texts)], limits, preload=preload, hash_seed=hash_seed)
    if ran.status != "ok":
        return ran
    value = ran.value
    if not isinstance(value, list) or len(value) != len(texts) or not all(isinstance(text, str) for text in value):
        return Ran("protocol", None, f"{FUNCTION} must return a text", ran.log, ran.level, ran.guards, ran.seconds, 0.0)
    return [str(text) for text in value], ran


def _on_targets(written: GeneratedPass, targets: Sequence[str], answers: Sequence[str]) -> list[str]:
    broken: list[str] = []
    meant = [(text, answer) for text, answer in zip(targets, answers, strict=False) if written.pattern in text]
    if not meant:
        return [f"no file to change holds its pattern {written.pattern!r}"]
    for text, answer in meant:
        broken += emitted_check.problems(text, answer, written.touches)
    if all(text == answer for text, answer in meant):
        broken.append("it changes nothing where its pattern stands")
    return broken


def _ended(ran: Ran) -> Verdict:
    return Verdict("sandbox", (f"{ran.status}: {ran.message}",), ran.level, ran.guards, ran.log)
