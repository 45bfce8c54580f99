"""The house itself: links and packages agree with the tree, files are small, what is light stays so; `make layers` holds the arrows."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("backends", "bench", "ir", "llm", "passes", "search")
LONGEST = 400
HEAVIEST = 12 * 2**20
HEAVY = ("torch", "diffusers", "transformers", "numpy", "xdsl", "libcst", "openai", "ray", "openvino", "onnxruntime")


@cache
def _setuptools() -> dict[str, Any]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: dict[str, Any] = config["tool"]["setuptools"]
    return found


@cache
def _files() -> tuple[Path, ...]:
    """Every file that is tracked or would be: relative to the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return tuple(sorted(Path(name) for name in set(listed.split("\0")) - {""} if (ROOT / name).is_file()))


def _is_text(file: Path) -> bool:
    return b"\0" not in (ROOT / file).read_bytes()[:8000]


def _package_folder(package: str) -> Path:
    """Where a package's files lie, by the room's mapping."""
    parts = package.split(".")
    for count in range(len(parts), 0, -1):
        folder = _setuptools()["package-dir"].get(".".join(parts[:count]))
        if folder is not None:
            return Path(folder, *parts[count:])
    return Path(*parts)


def test_each_room_is_linked_into_the_package() -> None:
    for room in ROOMS:
        link = ROOT / "diffopt" / room
        assert link.is_symlink(), f"diffopt/{room}: ln -s ../{room} diffopt/{room}"
        assert link.readlink() == Path("..", room)
        assert _setuptools()["package-dir"][f"diffopt.{room}"] == room


def test_each_folder_with_python_in_it_is_a_package_that_the_wheel_holds() -> None:
    listed = set(_setuptools()["packages"])
    found = set()
    for file in _files():
        if file.suffix == ".py" and file.parts[0] in (*ROOMS, "diffopt"):
            parts = file.parent.parts
            found.add(".".join(parts if parts[0] == "diffopt" else ("diffopt", *parts)))
            assert (ROOT / file.parent / "__init__.py").is_file(), f"{file.parent} has no __init__.py"
    assert listed == found


def test_each_data_file_of_a_package_is_in_the_wheel_and_each_pattern_finds_one() -> None:
    packaged = set()
    for package, patterns in _setuptools()["package-data"].items():
        folder = ROOT / _package_folder(package)
        for pattern in patterns:
            packaged |= {path.relative_to(ROOT) for path in folder.glob(pattern)}
    data = {file for file in _files() if file.parts[0] in (*ROOMS, "diffopt") and file.suffix != ".py"}
    data -= {Path("diffopt", room) for room in ROOMS}
    # Results are evidence for readers of the repository; nothing reads them at run time.
    data = {file for file in data if file.parts[:2] != ("bench", "results")}
    assert sorted(data - packaged) == []


def test_no_file_is_longer_than_400_lines() -> None:
    long = {}
    for file in _files():
        if file.suffix == ".py":
            lines = (ROOT / file).read_text(encoding="utf-8").count("\n")
            if lines > LONGEST:
                long[str(file)] = lines
    assert long == {}


def test_no_file_is_heavy() -> None:
    assert [str(file) for file in _files() if (ROOT / file).stat().st_size > HEAVIEST] == []


def test_no_file_names_a_path_of_this_machine() -> None:
    # A repository right below the root would forbid words that mean something else.
    paths = {str(place).encode() for place in (ROOT, Path.home()) if len(place.parts) > 2}
    named = []
    for file in _files():
        content = (ROOT / file).read_bytes()
        if _is_text(file) and any(path in content for path in paths):
            named.append(str(file))
    assert named == []


def test_no_module_has_a_name_without_meaning() -> None:
    empty = {"utils", "common", "helpers", "manager", "factory", "v2", "misc"}
    assert [str(file) for file in _files() if file.stem in empty] == []


@pytest.mark.parametrize("module", ["diffopt", "diffopt.ir.errors", "diffopt.backends.runtime", "diffopt.cli"])
def test_importing_is_light(module: str) -> None:
    # The promise is 50 ms for `import diffopt`; what would break it is seen here without a clock.
    code = f"import {module}, sys; print(sorted(set({HEAVY!r}) & set(sys.modules)), len(sys.modules))"
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=250)
    found, _, count = done.stdout.strip().rpartition(" ")
    assert found == "[]"
    if module == "diffopt":
        bare = subprocess.run(
            [sys.executable, "-I", "-c", "import sys; print(len(sys.modules))"], capture_output=True, check=True
        )
        assert int(count) - int(bare.stdout) < 100, "import diffopt loads many modules"


def test_help_and_the_refusal_of_a_missing_source_are_light() -> None:
    code = f"""
import sys
from diffopt.cli import build_parser, main
build_parser().format_help()
print(sorted(set({HEAVY!r}) & set(sys.modules)))
commands = (["compile"], ["direct", "--task", "faster"], ["profile"], ["export"], ["measure", "demo:shapes"])
print({{main([*command, "nowhere.py"]) for command in commands}}, sorted(set({HEAVY!r}) & set(sys.modules) - {{"xdsl"}}))
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=250)
    assert done.stdout.splitlines() == ["[]", "{2} []"]
    assert all("nowhere.py: no such file" in line for line in done.stderr.splitlines())
    assert "demo:shapes-xl" in done.stderr


def test_onnx_runtime_reports_nothing_where_diffopt_is_imported(tmp_path: Path) -> None:
    code = "import diffopt, onnxruntime; print(onnxruntime.get_available_providers())"
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", code], check=True, env=home, cwd=tmp_path, capture_output=True)
    assert not list(tmp_path.rglob("*")), "it keeps an identity and a queue of events"
