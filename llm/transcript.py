"""Keep every exchange with the language model in one append-only JSONL file, and play it back.

One line is one call: the request as sent, the answer as received, and what it cost. Keys are not in it: the client
takes them out before anything reaches this file. One process writes a transcript; a line is written in one piece, so
that a kill leaves at most one torn line at the end, which the next start drops.
"""

import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from diffopt.ir.errors import DiffoptError

FORMAT = 1
Mode = Literal["live", "record", "replay"]
Outcome = Literal["response", "http-error", "no-connection", "timeout"]


@checked_dataclass(frozen=True)
class Answer:
    """What came back for one request, whether or not it is any use."""

    outcome: Outcome
    status: int  # HTTP status, 0 when there was no response
    body: JsonValue  # parsed JSON, or the text when it was none
    attempts: int  # HTTP requests it took, retries included
    latency_s: float  # wall time over all attempts


@checked_dataclass(frozen=True)
class Entry:
    """One line of the transcript."""

    format: int
    id: str  # "call-3": the third line of this file
    parent: str  # the call this one repairs, or ""
    key: str  # sha256 of the canonical request
    occurrence: int  # how many lines before this one have the same key
    template: str  # name and hash of the prompt template
    endpoint: str
    request: dict[str, JsonValue]
    answer: Answer


@dataclass(frozen=True)
class Call:
    """A request and where it comes from."""

    request: Mapping[str, JsonValue]
    endpoint: str
    template: str
    parent: str = ""


_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


def canonical(request: Mapping[str, JsonValue]) -> str:
    """Return the one text form of a request."""
    return json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def request_key(request: Mapping[str, JsonValue]) -> str:
    """Return the sha256 of the canonical request, in hex."""
    return hashlib.sha256(canonical(request).encode()).hexdigest()


def _storable(answer: Answer) -> Answer:
    """Return an answer that can be written down and sent back: half characters become "?", what is no number a text."""
    text = json.dumps(answer.body, ensure_ascii=False).encode("utf-8", "replace")
    return replace(answer, body=json.loads(text, parse_constant=str))


class Transcript:
    """The calls of one run.

    `live` calls the endpoint and writes the line (nothing is kept when `path` is None). `record` first gives back the
    lines already there, in order, so that a resumed run pays for nothing twice, and then goes on live. `replay` never
    calls and never writes; a request that is not in the file is an error.
    """

    def __init__(self, path: Path | None, *, mode: Mode = "live") -> None:
        """Open a transcript.

        Raises:
            DiffoptError: the file is missing in mode `replay`, cannot be read, or has a broken line.
        """
        if mode not in get_args(Mode):
            raise DiffoptError(f"unknown transcript mode {mode!r}", hint=f"one of {', '.join(get_args(Mode))}")
        if path is None and mode != "live":
            raise DiffoptError(f"transcript mode {mode} needs a file")
        self.path = path
        self.mode = mode
        self._entries = _read(path, mode) if path is not None else []
        self._places = {(entry.key, entry.occurrence): entry for entry in self._entries}
        self._written = Counter(entry.key for entry in self._entries)
        self._asked: Counter[str] = Counter()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The calls so far, oldest first."""
        return tuple(self._entries)

    def holds(self, request: Mapping[str, JsonValue]) -> bool:
        """Tell whether the next call with this request would be answered from the file."""
        key = request_key(request)
        return self.mode != "live" and (key, self._asked[key]) in self._places

    def exchange(self, call: Call, send: Callable[[Mapping[str, JsonValue]], Answer]) -> Entry:
        """Answer a call from the file or through `send`, and keep what came.

        Raises:
            DiffoptError: strict replay misses, or the file cannot be written.
        """
        key = request_key(call.request)
        occurrence = self._asked[key]
        self._asked[key] += 1
        known = self._places.get((key, occurrence)) if self.mode != "live" else None
        if known is not None:
            return known
        if self.mode == "replay":
            raise DiffoptError(
                f"the transcript has no answer number {occurrence + 1} to request {key[:12]}",
                where=str(self.path),
                hint="prompt, model or settings differ from the recorded run; record it again",
            )
        entry = Entry(
            format=FORMAT,
            id=f"call-{len(self._entries) + 1}",
            parent=call.parent,
            key=key,
            occurrence=self._written[key],
            template=call.template,
            endpoint=call.endpoint,
            request=dict(call.request),
            answer=_storable(send(call.request)),
        )
        self._append(entry)
        return entry

    def _append(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._places[entry.key, entry.occurrence] = entry
        self._written[entry.key] += 1
        if self.path is None:
            return
        line = json.dumps(asdict(entry), sort_keys=True, ensure_ascii=False).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise DiffoptError(f"cannot write the transcript: {error.strerror}", where=str(self.path)) from error


def _read(path: Path, mode: Mode) -> list[Entry]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        if mode != "replay":
            return []
        raise DiffoptError("there is no transcript to replay", where=str(path)) from None
    except OSError as error:
        raise DiffoptError(f"cannot read the transcript: {error.strerror}", where=str(path)) from error
    whole = data.rfind(b"\n") + 1
    if whole < len(data) and mode != "replay":
        os.truncate(path, whole)  # the line a kill tore
    return [_entry(line, number, path) for number, line in enumerate(data[:whole].split(b"\n")[:-1], 1)]


def _entry(line: bytes, number: int, path: Path) -> Entry:
    try:
        entry = _ENTRY.validate_json(line)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise DiffoptError(f"broken transcript line: {reason}", where=f"{path}:{number}") from None
    if entry.format != FORMAT:
        raise DiffoptError(f"transcript format {entry.format} is not {FORMAT}", where=f"{path}:{number}")
    return entry
