from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path

import pytest

from diffopt.backends import BackendError, EngineKey
from diffopt.backends.engine_store import check_engine, open_engine, read_manifest

KEY = EngineKey("openvino", "w", [], [], {}, {}, "cpu-0")


def build(folder: Path) -> dict[str, int]:
    (folder / "model.bin").write_bytes(b"weights" * 100)
    return {"operations": 3}


def load(folder: Path) -> bytes:
    return (folder / "model.bin").read_bytes()


def refuse(folder: Path) -> dict[str, int]:
    raise AssertionError("built a second time")


def test_an_engine_is_built_once_and_loaded_ever_after(tmp_path: Path) -> None:
    first = open_engine(tmp_path, KEY, build, load)
    assert open_engine(tmp_path, KEY, refuse, load) == first
    assert open_engine(tmp_path, KEY, None, load) == first
    assert read_manifest(tmp_path / KEY.hash)["facts"] == {"operations": 3}


def test_a_build_leaves_nothing_else_behind(tmp_path: Path) -> None:
    open_engine(tmp_path, KEY, build, load)
    assert [path.name for path in tmp_path.iterdir()] == [KEY.hash]


@pytest.mark.parametrize("damage", ["flip", "delete", "truncate", "manifest", "format"])
def test_a_damaged_engine_is_built_again_or_else_refused(tmp_path: Path, damage: str) -> None:
    sound = open_engine(tmp_path, KEY, build, load)
    weights, manifest = tmp_path / KEY.hash / "model.bin", tmp_path / KEY.hash / "engine.json"
    match damage:
        case "flip":
            weights.write_bytes(b"X" + sound[1:])
        case "delete":
            weights.unlink()
        case "truncate":
            weights.write_bytes(sound[:10])
        case "manifest":
            manifest.write_text("{")
        case "format":
            manifest.write_text(manifest.read_text().replace('"format": 1,\n "key"', '"format": 99,\n "key"'))
    assert check_engine(tmp_path / KEY.hash) is not None
    with pytest.raises(BackendError, match="build it again"):
        open_engine(tmp_path, KEY, None, load)
    assert open_engine(tmp_path, KEY, build, load) == sound
    assert [path.name for path in tmp_path.iterdir()] == [KEY.hash]


def test_a_failed_build_leaves_no_engine(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, int]:
        (folder / "model.bin").write_bytes(b"half")
        raise BackendError("cannot")

    with pytest.raises(BackendError, match="cannot"):
        open_engine(tmp_path, KEY, fail, load)
    assert list(tmp_path.iterdir()) == []


def _build_forever(folder: Path) -> dict[str, int]:
    (folder / "model.bin").write_bytes(b"half")
    time.sleep(60)
    return {}


def _open_slowly(engines: Path, go: float) -> None:
    def slow(folder: Path) -> dict[str, int]:
        time.sleep(max(0.0, go - time.time()))
        return build(folder)

    assert open_engine(engines, KEY, slow, load) == b"weights" * 100


def test_a_build_killed_midway_harms_no_later_one(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=open_engine, args=(tmp_path, KEY, _build_forever, load))
    child.start()
    while not list(tmp_path.glob(".*/model.bin")):
        time.sleep(0.01)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not (tmp_path / KEY.hash).exists()
    assert open_engine(tmp_path, KEY, build, load) == b"weights" * 100
    assert [path.name for path in tmp_path.iterdir()] == [KEY.hash]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    def fill(folder: Path) -> dict[str, int]:
        (folder / "model.bin").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(BackendError, match="could not be written: No space left on device"):
        open_engine(tmp_path, KEY, fill, load)
    assert list(tmp_path.iterdir()) == []


def _open_within(engines: Path, size: int) -> None:
    """Open an engine where files may have so many bytes at most, as on a disk that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        open_engine(engines, KEY, build, load)
    except BackendError:
        os._exit(7)
    os._exit(0)


@pytest.mark.parametrize("size", [10, 500, 750])  # in the weights, in the weights, in the manifest
def test_a_disk_that_fills_up_at_any_moment_leaves_nothing(tmp_path: Path, size: int) -> None:
    child = multiprocessing.get_context("fork").Process(target=_open_within, args=(tmp_path, size))
    child.start()
    child.join()
    assert child.exitcode in (7, 0 if size > 700 else 7)
    assert child.exitcode == 0 or list(tmp_path.iterdir()) == []
    assert open_engine(tmp_path, KEY, build, load) == b"weights" * 100


def test_a_second_builder_waits_and_builds_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    first = context.Process(target=_open_slowly, args=(tmp_path, time.time() + 0.3))
    first.start()
    while not list(tmp_path.glob(".*.lock")):
        time.sleep(0.01)
    assert open_engine(tmp_path, KEY, refuse, load) == b"weights" * 100
    first.join()


def test_two_builders_at_once_leave_one_sound_engine(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_open_slowly, args=(tmp_path, time.time() + 0.2)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == [KEY.hash]
    assert check_engine(tmp_path / KEY.hash) is None
