"""A script with the files of its own project that it imports: same folder or package, never outside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import libcst as cst

from diffopt.ir.errors import DiffoptError
from diffopt.ir.script_places import Places
from diffopt.ir.script_scopes import absolute, dotted
from diffopt.ir.script_text import Part, Script, join, parse_part, read_script

MOST_FILES = 60
NOTEBOOK = ".ipynb"


def open_script(path: str | Path) -> Script:
    """Read and parse a script or notebook with the files of its project that it imports.

    Raises:
        DiffoptError: the file cannot be read or is not Python.
    """
    return open_text(read_script(path), path)


def open_text(text: str, path: str | Path) -> Script:
    """Parse a script's text with the files of its project that it imports."""
    where = str(path)
    if where.endswith(NOTEBOOK):
        from diffopt.ir.script_notebook import parse_notebook

        main = parse_notebook(text, where)
    else:
        main = parse_part(text, where)
    folder = Path(where).absolute().parent
    project = _Project(_roots(folder))
    package = _package_of(folder)
    part = replace(main[0], package=package)
    project.follow(part, main[1])
    return join([*project.found, (part, main[1])])


@dataclass
class _Project:
    """Files found so far, those that others import first."""

    roots: tuple[Path, ...]
    found: list[tuple[Part, Places]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def follow(self, part: Part, places: Places) -> None:
        """Read what a file imports of the project, and what that imports."""
        for name in _imported(part, places):
            if name in self.seen or len(self.seen) >= MOST_FILES:
                continue
            file = self._file(name)
            if file is None:
                continue
            self.seen.add(name)
            try:
                module, its_places = parse_part(read_script(file), _shown(file))
            except DiffoptError:
                continue  # what stands in it stays unknown where it is used
            package = name if file.name == "__init__.py" else name.rpartition(".")[0]
            module = replace(module, name=name, package=package)
            self.follow(module, its_places)
            self.found.append((module, its_places))

    def _file(self, name: str) -> Path | None:
        steps = name.split(".")
        for root in self.roots:
            place = root.joinpath(*steps)
            for file in (place.with_suffix(".py"), place / "__init__.py"):
                try:
                    inside = file.is_file() and file.resolve().is_relative_to(root.resolve())
                except (OSError, ValueError):
                    continue
                if inside:
                    return file
        return None


def _imported(part: Part, places: Places) -> Iterator[str]:
    """Yield the dotted names of modules that a file may import; a name from a module may be a module itself."""
    for node in places.nodes:
        if isinstance(node, cst.Import):
            for alias in node.names:
                yield dotted(alias.name)
        elif isinstance(node, cst.ImportFrom):
            before = absolute("." * len(node.relative) + (dotted(node.module) if node.module else ""), part.package)
            if before:
                yield before
            if not isinstance(node.names, cst.ImportStar):
                yield from (f"{before}.{dotted(alias.name)}".lstrip(".") for alias in node.names)


def _roots(folder: Path) -> tuple[Path, ...]:
    """Return where imports of the project are looked for: the script's folder, and the one that holds its package."""
    top = folder
    while (top / "__init__.py").is_file() and top != top.parent:
        top = top.parent
    return tuple(dict.fromkeys((folder, top)))


def _package_of(folder: Path) -> str:
    top = _roots(folder)[-1]
    return ".".join(folder.relative_to(top).parts)


def _shown(file: Path) -> str:
    """Return a path as short as it can be said from here."""
    here = Path.cwd()
    return str(file.relative_to(here)) if file.is_relative_to(here) else str(file)
