"""Do the rewrites that a module names: the code from a library, in the sandbox, its answer compared with its promise."""

from __future__ import annotations

from collections.abc import Sequence

from diffopt.ir.errors import DiffoptError
from diffopt.ir.rewrite import RewriteFailed
from diffopt.llm import emitted_check
from diffopt.llm.laws import rewrite_each
from diffopt.llm.library import Library
from diffopt.llm.sandbox import Limits, Ran


class SandboxedRewriter:
    """A `diffopt.ir.rewrite.Rewriter`. What it has rewritten once it remembers; `guards` are those of the last run."""

    def __init__(self, libraries: Sequence[Library], limits: Limits | None = None) -> None:
        self.libraries, self.limits = tuple(libraries), limits or Limits()
        self.guards: tuple[str, ...] = ()
        self._known: dict[tuple[str, str], str] = {}

    def __call__(self, code: str, text: str) -> str:
        """Return what the code makes of the text.

        Raises:
            RewriteFailed: the code fails, or changes what it did not declare.
            DiffoptError: no library holds the code, or the sandbox cannot be as tight as is asked for.
        """
        known = self._known.get((code, text))
        if known is not None:
            return known
        found = next((held for library in self.libraries if (held := library.get(code)) is not None), None)
        if found is None:
            raise DiffoptError(f"the generated code {code[:15]} is not here", hint="it is in the run that made it")
        written, _ = found
        answer = rewrite_each(written.code, [text], self.limits)
        if isinstance(answer, Ran):
            if answer.status == "unconfined":
                raise DiffoptError(answer.message, "--sandbox-level", hint="ask for less, at your own risk")
            raise RewriteFailed(f"{answer.status}: {answer.message}", written.name)
        (after,), ran = answer
        self.guards = ran.guards
        broken = emitted_check.problems(text, after, written.touches)
        if broken:
            raise RewriteFailed(broken[0], written.name)
        self._known[code, text] = after
        return after
