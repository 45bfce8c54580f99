"""What a confined process can and cannot do, tried in children."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from diffopt.bench.confinement import Confinement, landlock_version, open_paths

needs_landlock = pytest.mark.skipif(landlock_version() < 6, reason="this kernel has no Landlock, or an old one")


def attempt(code: str, confinement: Confinement, folder: Path) -> str:
    """Run code in a confined child; return what it prints: what it managed, or the name of the error."""
    text = f"""
import json, sys
from diffopt.bench.confinement import Confinement, confine
guards = confine(Confinement.from_json(json.loads(sys.argv[1])))
try:
    {code}
    print("managed")
except BaseException as error:
    print(type(error).__name__)
"""
    command = [sys.executable, "-c", text, json.dumps(confinement.to_json())]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() or f"signal {-done.returncode}: {done.stderr[-300:]}"


@pytest.fixture
def rooms(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of its own and one it must not see."""
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    (other / "secret.txt").write_text("sesame")
    return own, other


@needs_landlock
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("open('mine.txt', 'w').write('x')", "managed"),
        ("import os; os.listdir('/usr')", "managed"),
        ("open('../other/secret.txt').read()", "PermissionError"),
        ("open('../other/new.txt', 'w')", "PermissionError"),
        ("import os; os.listdir('../other')", "PermissionError"),
        ("import os; os.symlink('../other/secret.txt', 'link'); open('link').read()", "PermissionError"),
        ("import os; os.link('../other/secret.txt', 'hard')", "OSError"),
        ("open('/proc/self/root' + __import__('os').path.realpath('../other/secret.txt')).read()", "PermissionError"),
        ("import os; open(f'/proc/{os.getppid()}/environ').read()", "PermissionError"),
        ("import os; os.kill(os.getppid(), 9)", "PermissionError"),
        ("import socket; socket.create_connection(('127.0.0.1', 9), 1)", "PermissionError"),
        ("import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "PermissionError"),
        ("import socket; socket.socketpair()", "managed"),
        ("open('big', 'wb').write(bytes(2 << 20))", "OSError"),
        ("import subprocess; subprocess.run(['cat', '../other/secret.txt'], check=True)", "CalledProcessError"),
    ],
)
def test_a_confined_process_stays_inside(rooms: tuple[Path, Path], code: str, expected: str) -> None:
    own, other = rooms
    inside = Confinement(writable=(str(own),), hidden=(str(other),), file_bytes=1 << 20)
    code = f"import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); {code}"
    assert attempt(code, inside, own) == expected


@needs_landlock
def test_a_writable_folder_in_a_hidden_one_stays_open(rooms: tuple[Path, Path]) -> None:
    own, other = rooms
    inside = Confinement(writable=(str(own),), hidden=(str(own.parent),))
    assert attempt("open('mine.txt', 'w').write('x')", inside, own) == "managed"
    assert attempt(f"open({str(other / 'secret.txt')!r})", inside, own) == "PermissionError"


@needs_landlock
def test_the_guards_that_hold_are_told(rooms: tuple[Path, Path]) -> None:
    own, _ = rooms
    code = "assert {'limits', 'files', 'processes', 'tcp', 'signals'} <= set(guards), guards"
    assert attempt(code, Confinement(writable=(str(own),)), own) == "managed"


def test_open_paths_leave_out_what_is_hidden_and_links(tmp_path: Path) -> None:
    for name in ("a/x", "a/y", "b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "x")
    found = set(open_paths((str(tmp_path),), (str(tmp_path / "a" / "x"),)))
    assert found == {str(tmp_path / "a" / "y"), str(tmp_path / "b")}


def test_a_confinement_comes_back_from_json() -> None:
    wanted = Confinement(writable=("/tmp/x",), hidden=("/a",), network=True, cpu_s=3)
    assert Confinement.from_json(wanted.to_json()) == wanted
