"""The doctor writes what it has read, and nothing else; one file's trouble is not another's."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from diffopt.cli import main
from diffopt.doctor import command, runner
from diffopt.doctor.files import write
from diffopt.ir.errors import DiffoptError

BAD = """\
import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("model", torch_dtype=torch.bfloat16)
"""
MENDED = BAD.replace("torch_dtype", "dtype")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A script with one finding, which can be fixed."""
    file = tmp_path / "script.py"
    file.write_text(BAD, encoding="utf-8")
    return file


def test_what_was_saved_while_a_file_was_fixed_stays(
    script: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(text: str, path: str, chosen: object) -> str:
        script.write_text("saved = 1\n", encoding="utf-8")
        return MENDED

    monkeypatch.setattr(runner, "fixed", slow)
    assert main(["doctor", "--fix", str(script)]) == 2
    assert script.read_text(encoding="utf-8") == "saved = 1\n"
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "changed while it was being fixed" in captured.err
    assert "DIFF001" in captured.out


def test_each_file_is_read_just_before_it_is_fixed(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "zz.py"
    other.write_text(BAD, encoding="utf-8")

    def saving(path: Path, before: str, after: str) -> None:
        write(path, before, after)
        if path.name == "script.py":
            other.write_text(BAD + "saved = 1\n", encoding="utf-8")

    monkeypatch.setattr(command, "write", saving)
    assert main(["doctor", "--fix", str(script), str(other)]) == 0
    assert other.read_text(encoding="utf-8") == MENDED + "saved = 1\n"


def test_a_read_only_file_is_not_fixed(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.chmod(0o444)
    assert main(["doctor", "--fix", str(script)]) == 2
    assert script.read_text(encoding="utf-8") == BAD
    assert stat.S_IMODE(script.stat().st_mode) == 0o444
    captured = capsys.readouterr()
    assert "read-only" in captured.err
    assert "DIFF001" in captured.out


def test_both_names_of_a_file_see_the_fix(script: Path) -> None:
    other = script.parent / "other.txt"
    os.link(script, other)
    assert main(["doctor", "--fix", str(script)]) == 0
    assert other.read_text(encoding="utf-8") == MENDED
    assert other.samefile(script)


def test_a_fix_that_cannot_be_written_leaves_the_file_and_no_other(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DiffoptError, match="No space left"):
        write(script, BAD, MENDED)
    assert script.read_text(encoding="utf-8") == BAD
    assert [file.name for file in script.parent.iterdir()] == ["script.py"]


def test_links_out_of_a_folder_are_left_alone(tmp_path: Path, script: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "real.py").write_text(BAD, encoding="utf-8")
    (folder / "near.py").symlink_to(folder / "inner" / "real.py")
    (folder / "far.py").symlink_to(script)
    main(["doctor", "--fix", str(folder)])
    assert script.read_text(encoding="utf-8") == BAD
    assert (folder / "inner" / "real.py").read_text(encoding="utf-8") == MENDED
    assert (folder / "near.py").is_symlink()


def test_a_link_that_is_named_is_followed(tmp_path: Path, script: Path) -> None:
    link = tmp_path / "link.py"
    link.symlink_to(script)
    assert main(["doctor", "--fix", str(link)]) == 0
    assert script.read_text(encoding="utf-8") == MENDED
    assert link.is_symlink()


def test_a_script_that_cannot_be_read_keeps_no_other_from_its_turn(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.py").write_text("print 'Python 2'\n", encoding="utf-8")
    assert main(["doctor", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "a.py:1: not valid Python" in captured.err
    assert captured.out.splitlines()[1] == "1 warning in 1 script"
    assert main(["doctor", "--fix", "--json", str(tmp_path)]) == 2
    report = json.loads(capsys.readouterr().out)
    assert [Path(error["path"]).name for error in report["errors"]] == ["a.py"]
    assert report["fixed"] == [str(script)]
    assert main(["doctor", "--sarif", str(tmp_path)]) == 2
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert not run["invocations"][0]["executionSuccessful"]


def test_a_script_that_is_named_twice_is_read_once(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(script), str(script.parent)]) == 1
    assert capsys.readouterr().out.splitlines()[1] == "1 warning in 1 script"


def test_a_pipe_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe.py"
    os.mkfifo(pipe)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["doctor", str(pipe)])), daemon=True)
    thread.start()
    thread.join(10)
    assert codes == [2]
    assert "not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a\nb.py", "a\x1b[31mb.py", b"a\xffb.py"])
def test_a_file_name_stays_in_its_line(name: str | bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / os.fsdecode(name)
    file.write_text(BAD, encoding="utf-8")
    for arguments in ([], ["--diff"], ["--json"], ["--sarif"]):
        assert main(["doctor", *arguments, str(file)]) == 1
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "a\nb" not in out
        out.encode("utf-8")
    file.write_text("x = (\n", encoding="utf-8")
    assert main(["doctor", str(file)]) == 2
    captured = capsys.readouterr()
    assert "\x1b" not in captured.err
    assert captured.err.count("\n") == 1
