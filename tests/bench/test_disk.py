from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffopt.bench.disk import disk_is_full, make_folder, write_bytes, write_text
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
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
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
