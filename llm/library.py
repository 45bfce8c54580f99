"""Generated passes on disk: their code by hash, what they said of themselves, and what became of them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from diffopt.bench.disk import make_folder, write_text
from diffopt.ir.errors import DiffoptError
from diffopt.ir.rewrite import CODE
from diffopt.llm.generated import GeneratedPass
from diffopt.passes.base import registry

FORMAT: Final = 1

Status = Literal["candidate", "static", "sandbox", "laws", "failed", "weaker", "promoted"]
"""What became of a generated pass.

candidate: it keeps the laws, was measured, and keeps its tier. static, sandbox, laws: where it was refused, before any
measurement. failed: its program did not run. weaker: the images are worse than it promised. promoted: a person said so.
"""


@checked_dataclass(frozen=True)
class Entry:
    """One generated pass and its history."""

    format: int
    declared: dict[str, JsonValue]  # all of `GeneratedPass` but the code
    status: Status
    why: str
    call: str  # where it stands in the transcript
    level: int | None  # of the sandbox when its laws were checked; None where nothing was run
    guards: tuple[str, ...] = ()
    measured: dict[str, JsonValue] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name it gave itself."""
        return str(self.declared["name"])


_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


@dataclass(frozen=True)
class Library:
    """A folder of generated passes: `<hash>.py.txt` and `<hash>.json`. Reading runs nothing of them."""

    folder: Path

    def add(self, written: GeneratedPass, entry: Entry) -> None:
        """Write a pass down, or what has become of it since.

        Raises:
            DiffoptError: the folder cannot be written.
        """
        make_folder(self.folder)
        stem = written.id.removeprefix("sha256:")
        write_text(self.folder / f"{stem}.py.txt", written.code)
        write_text(self.folder / f"{stem}.json", json.dumps(dataclasses.asdict(entry), indent=1, sort_keys=True))

    def get(self, code: str) -> tuple[GeneratedPass, Entry] | None:
        """Return a pass by its code's name `sha256:…`, or `None`.

        Raises:
            DiffoptError: its files do not hold together.
        """
        stem = code.removeprefix("sha256:")
        text, meta = self.folder / f"{stem}.py.txt", self.folder / f"{stem}.json"
        if not CODE.fullmatch(code) or not (text.is_file() and meta.is_file()):
            return None
        try:
            entry = _ENTRY.validate_json(meta.read_bytes())
            written = GeneratedPass.model_validate({**entry.declared, "code": text.read_text(encoding="utf-8")})
        except (OSError, ValueError, ValidationError) as error:
            raise DiffoptError(f"cannot be read as a generated pass: {type(error).__name__}", str(meta)) from None
        if entry.format != FORMAT:
            raise DiffoptError(f"generated pass of format {entry.format}, not {FORMAT}", str(meta))
        if written.id != code:
            raise DiffoptError("the code is not the one its name says", str(text), hint="it was changed since")
        return written, entry

    def __iter__(self) -> Iterator[tuple[GeneratedPass, Entry]]:
        """Yield every pass, by its hash."""
        for path in sorted(self.folder.glob("*.json")) if self.folder.is_dir() else ():
            found = self.get(f"sha256:{path.stem}")
            if found is not None:
                yield found

    def named(self, name: str) -> tuple[GeneratedPass, Entry]:
        """Return a pass by its own name, or by the first digits of its hash.

        Raises:
            DiffoptError: there is none, or several.
        """
        digits = name.removeprefix("sha256:")
        found = [
            (written, entry)
            for written, entry in self
            if entry.name == name or (len(digits) >= 6 and written.id.removeprefix("sha256:").startswith(digits))
        ]
        if len(found) == 1:
            return found[0]
        known = ", ".join(f"{entry.name} ({written.id[7:15]}, {entry.status})" for written, entry in self) or "none"
        what = "several generated passes are" if found else "no generated pass is"
        raise DiffoptError(f"{what} named {name!r}", str(self.folder), hint=f"there: {known}")


def entry_of(
    written: GeneratedPass,
    status: Status,
    why: str,
    *,
    call: str = "",
    level: int | None = None,
    guards: tuple[str, ...] = (),
    measured: Mapping[str, JsonValue] | None = None,
) -> Entry:
    """Return the history of a pass so far."""
    declared = written.model_dump(exclude={"code"})
    return Entry(FORMAT, declared, status, why, call, level, guards, dict(measured or {}))


def promote(name: str, run: Library, promoted: Library) -> GeneratedPass:
    """Take a candidate of a run into the promoted passes; only what was measured and kept its promise goes.

    Raises:
        DiffoptError: no such pass, it is no candidate, or another pass has its name.
    """
    written, entry = run.named(name)
    if entry.status not in ("candidate", "promoted"):
        raise DiffoptError(f"{entry.name} is no candidate: {entry.status}: {entry.why}", str(run.folder))
    if entry.name in registry():
        hint = f"give it another in {written.id[7:]}.json"
        raise DiffoptError(f"a pass of diffopt is called {entry.name} already", str(run.folder), hint=hint)
    for other, known in promoted:
        if known.name == entry.name and other.id != written.id:
            raise DiffoptError(
                f"another pass is promoted as {entry.name}", str(promoted.folder), hint=f"remove {other.id[7:]}.json"
            )
    promoted.add(written, dataclasses.replace(entry, status="promoted"))
    run.add(written, dataclasses.replace(entry, status="promoted"))
    return written


def spelled_out(trace: str, library: Library) -> str:
    """Return the text of a trace with the names of promoted passes written as the rewrites they are."""
    outside = re.split(r"(\{[^{}]*\})", trace)
    known = {entry.name: written for written, entry in library if entry.name not in registry()}
    for at in range(0, len(outside), 2):
        words = re.split(r"([\w-]+)", outside[at])
        outside[at] = "".join(f'rewrite{{code="{known[word].id}"}}' if word in known else word for word in words)
    return "".join(outside)
