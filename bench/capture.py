"""What a process printed: the beginning and the end, however much there was."""

from __future__ import annotations

import os

_LOG_END = 32 << 10


class Capture:
    """The beginning and the end of a stream of any length."""

    def __init__(self) -> None:
        self._head, self._tail, self._seen = bytearray(), bytearray(), 0

    def drain(self, descriptor: int) -> bool:
        """Read once; False when there is nothing now or nothing will come."""
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return False
        self._seen += len(data)
        room = _LOG_END - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        del self._tail[:-_LOG_END]
        return bool(data)

    def text(self) -> str:
        """Return what is kept, with a line in the middle that says how much is not."""
        left_out = self._seen - len(self._head) - len(self._tail)
        middle = f"\n... {left_out} bytes left out ...\n" if left_out else ""
        return self._head.decode(errors="replace") + middle + self._tail.decode(errors="replace")
