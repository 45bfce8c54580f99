"""The one exception for input that a user can mend."""

from __future__ import annotations


class DiffoptError(Exception):
    """Bad input, said in one line: what, where, and what to do.

    Args:
        message: what is wrong, without a full stop.
        where: ``file:line`` or the name of the thing at fault; may be empty.
        hint: what to do about it; may be empty.
    """

    def __init__(self, message: str, where: str = "", hint: str = "") -> None:
        self.message, self.where, self.hint = message, where, hint
        text = f"{where}: {message}" if where else message
        super().__init__(" ".join(f"{text}; {hint}".split()) if hint else " ".join(text.split()))
