from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffopt.bench.disk import disk_is_full, make_folder, scratch, write_bytes, write_new, write_text
from diffopt.ir.errors import DiffoptError


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a quarter megabyte, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_line_that_names_the_path(tiny_disk: Path) -> None:
    path = tiny_disk / "big.bin"
    with pytest.raises(DiffoptError) as caught:
        write_bytes(path, bytes(1 << 20))
    assert str(path) in str(caught.value)
    assert "No space left" in str(caught.value)
    assert list(tiny_disk.iterdir()) == []


def test_a_full_disk_is_noticed(tiny_disk: Path, tmp_path: Path) -> None:
    assert disk_is_full(tiny_disk)
    assert not disk_is_full(tmp_path)


def test_any_way_a_file_cannot_be_written_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("diffopt.bench.disk.write_new", full)
    with pytest.raises(DiffoptError, match=r"out\.txt: cannot write: No space left on device; free some space"):
        write_text(tmp_path / "out.txt", "text")


def test_a_folder_where_a_file_is_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiffoptError, match="file"):
        make_folder(tmp_path / "file" / "folder")


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    for text in ("first", "second"):
        write_text(tmp_path / "file.txt", text)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file.txt", "second")]


@pytest.mark.parametrize("write", [write_new, write_bytes])
def test_a_link_that_a_program_left_is_replaced_and_not_followed(
    tmp_path: Path, write: Callable[[Path, bytes], None]
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in ("file", f".file.{os.getpid()}"):
        (tmp_path / name).symlink_to(victim)
    write(tmp_path / "file", b"payload")
    assert victim.read_text() == "mine"
    assert (tmp_path / "file").read_bytes() == b"payload"
    assert not (tmp_path / "file").is_symlink()


def test_the_probe_for_room_follows_no_link_either(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / f".space-{os.getpid()}").symlink_to(tmp_path / "victim")
    assert not disk_is_full(tmp_path)
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_folder_in_the_place_of_a_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "worker.log" / "deep").mkdir(parents=True)
    write_new(tmp_path / "worker.log", b"log")
    assert (tmp_path / "worker.log").read_bytes() == b"log"


def test_what_a_killed_run_left_is_removed_at_the_next_start_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from diffopt.bench.disk import scratch\n"
        "with scratch('diffopt-x-', Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    (tmp_path / "diffopt-x-of-somebody").mkdir()
    (tmp_path / "other").mkdir()
    with scratch("diffopt-x-", tmp_path) as one, scratch("diffopt-x-", tmp_path) as two:
        assert one.is_dir()
        assert one != two
        assert not left.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["diffopt-x-of-somebody", "other"]
