"""Prompt templates: text files in `prompts/`, reviewed as text, filled in once."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_SECTION = re.compile(r"^=== (\w+)\n", re.MULTILINE)
_MODEL = re.compile(r'^(MODEL = ")(/[^"\n]*)"$', re.MULTILINE)
_PLACE = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class Template:
    """A named prompt in sections, each introduced by a line `=== section`."""

    name: str
    text: str

    @property
    def identity(self) -> str:
        """Name and hash, as the transcript keeps it."""
        return f"{self.name}@{hashlib.sha256(self.text.encode()).hexdigest()[:16]}"

    def render(self, section: str, **values: str) -> str:
        """Fill in a section. What is filled in is not looked at again, so it cannot bring places of its own.

        Raises:
            KeyError: there is no such section, or a place has no value.
        """
        parts = _SECTION.split(self.text)
        text = dict(zip(parts[1::2], parts[2::2], strict=True))[section]
        return _PLACE.sub(lambda match: values[match.group(1)], text).strip()


@cache
def load(name: str) -> Template:
    """Read `prompts/<name>.md`."""
    return Template(name, (files("diffopt.llm") / "prompts" / f"{name}.md").read_text(encoding="utf-8"))


def without_folder(pipeline_py: str) -> str:
    """Return an emitted file that names its model alone: where it lies on this machine is nobody's business."""
    return _MODEL.sub(lambda found: f'{found[1]}{found[2].rstrip("/").rpartition("/")[2]}"', pipeline_py)


def with_folder(code: str, reference: str) -> str:
    """Return code written for `without_folder(reference)` with the model's place put back in."""
    placed = _MODEL.search(reference)
    return code if placed is None else code.replace(without_folder(placed[0]), placed[0])


def data_block(text: str, *, limit: int = 60_000) -> str:
    """Return text by others between two lines that it cannot hold itself, invisible characters spelled out.

    Args:
        limit: characters kept; the middle goes when there are more.
    """
    visible = "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text.strip())
    if len(visible) > limit:
        half = limit // 2
        visible = f"{visible[:half]}\n[{len(visible) - 2 * half} characters left out]\n{visible[-half:]}"
    name = hashlib.sha256(visible.encode("utf-8", "replace")).hexdigest()[:16]
    return f"BEGIN DATA {name}\n{visible}\nEND DATA {name}"
