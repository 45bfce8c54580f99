import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from diffopt.ir.errors import DiffoptError
from diffopt.llm.transcript import Answer, Call, Mode, Transcript, canonical, request_key

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)


class Model:
    """Answers each request with the next number."""

    def __init__(self) -> None:
        self.count = 0

    def send(self, request: object) -> Answer:
        self.count += 1
        return Answer("response", 200, {"n": self.count}, 1, 0.25)


def ask(transcript: Transcript, model: Model, text: str) -> JsonValue:
    return transcript.exchange(Call({"text": text}, "http://127.0.0.1:1", "t@0"), model.send).answer.body


def test_replays_each_occurrence_of_a_request_in_its_order(tmp_path: Path) -> None:
    path, model = tmp_path / "t.jsonl", Model()
    live = Transcript(path)
    said = [ask(live, model, text) for text in ("a", "b", "a")]
    before = path.read_bytes()
    replay = Transcript(path, mode="replay")
    assert [ask(replay, model, text) for text in ("a", "a", "b")] == [said[0], said[2], said[1]]
    assert replay.entries == live.entries
    assert (path.read_bytes(), model.count) == (before, 3)


def test_an_answer_of_half_characters_and_of_no_numbers_is_kept_and_can_be_sent_back(tmp_path: Path) -> None:
    answer = Answer("response", 200, {"text": "a\ud800", "n": float("nan"), "m": float("inf")}, 1, 0.25)
    entry = Transcript(tmp_path / "t").exchange(Call({"m": 1}, "http://127.0.0.1:1", "t@0"), lambda request: answer)
    assert entry.answer.body == {"text": "a?", "n": "NaN", "m": "Infinity"}
    assert canonical({"body": entry.answer.body}).encode()
    assert Transcript(tmp_path / "t").entries == (entry,)


def test_a_changed_request_is_a_strict_miss(tmp_path: Path) -> None:
    path, model = tmp_path / "t.jsonl", Model()
    ask(Transcript(path), model, "a")
    replay = Transcript(path, mode="replay")
    with pytest.raises(DiffoptError, match="no answer number 1"):
        ask(replay, model, "A")
    ask(replay, model, "a")
    with pytest.raises(DiffoptError, match="no answer number 2"):
        ask(replay, model, "a")


def test_recording_again_pays_only_for_what_is_new(tmp_path: Path) -> None:
    path, model = tmp_path / "t.jsonl", Model()
    first = Transcript(path, mode="record")
    ask(first, model, "a")
    second = Transcript(path, mode="record")
    assert [ask(second, model, text) for text in ("a", "b", "a")] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert [(entry.id, entry.occurrence) for entry in second.entries] == [("call-1", 0), ("call-2", 0), ("call-3", 1)]


def test_live_calls_again_and_appends(tmp_path: Path) -> None:
    path, model = tmp_path / "t.jsonl", Model()
    ask(Transcript(path), model, "a")
    ask(Transcript(path), model, "a")
    assert model.count == 2
    assert [entry.occurrence for entry in Transcript(path, mode="replay").entries] == [0, 1]


@pytest.mark.parametrize("mode", ["live", "record", "replay"])
def test_drops_the_line_that_a_kill_tore(tmp_path: Path, mode: Mode) -> None:
    path, model = tmp_path / "t.jsonl", Model()
    ask(Transcript(path), model, "a")
    ask(Transcript(path), model, "b")
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    transcript = Transcript(path, mode=mode)
    assert [entry.id for entry in transcript.entries] == ["call-1"]
    if mode != "replay":
        ask(transcript, model, "c")
        assert [entry.request["text"] for entry in Transcript(path).entries] == ["a", "c"]


def test_survives_a_real_kill_while_writing(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    code = (
        "import sys; from pathlib import Path; from diffopt.llm.transcript import *\n"
        "t = Transcript(Path(sys.argv[1])); print('go', flush=True); n = 0\n"
        "while True:\n"
        "    n += 1; t.exchange(Call({'n': n}, 'e', 't'), lambda r: Answer('response', 200, 'x' * 100000, 1, 0.0))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, cwd=tmp_path) as child:
        assert child.stdout is not None
        child.stdout.readline()
        while not path.exists() or path.stat().st_size < 1_000_000:
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    entries = Transcript(path, mode="record").entries
    assert [entry.request["n"] for entry in entries] == list(range(1, len(entries) + 1))
    assert len(entries) >= 8


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    ask(Transcript(path), Model(), "a")
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(DiffoptError, match=r"t\.jsonl:1: broken transcript line"):
        Transcript(path)


def test_reads_the_first_stored_form(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"answer": {"attempts": 1, "body": {"n": 1}, "latency_s": 0.25, "outcome": "response", "status": 200}, '
        '"endpoint": "http://127.0.0.1:1", "format": 1, "id": "call-1", '
        '"key": "6193c97585a0f731ce7b500bb69d2476816afb14c8d95ac8e6e865f680e9e438", "occurrence": 0, "parent": "", '
        '"request": {"text": "a"}, "template": "t@0"}\n'
    )
    assert ask(Transcript(path, mode="replay"), Model(), "a") == {"n": 1}


def test_no_file_to_replay_and_a_full_disk_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DiffoptError, match="no transcript to replay"):
        Transcript(tmp_path / "none.jsonl", mode="replay")
    with pytest.raises(DiffoptError, match="needs a file"):
        Transcript(None, mode="record")
    if os.path.exists("/dev/full"):
        link = tmp_path / "full.jsonl"
        link.symlink_to("/dev/full")
        transcript = Transcript(None)
        transcript.path = link
        with pytest.raises(DiffoptError, match="cannot write the transcript: No space left"):
            ask(transcript, Model(), "a")


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_one_request_has_one_key_in_any_order(request: dict[str, JsonValue]) -> None:
    turned = dict(reversed(request.items()))
    assert canonical(request) == canonical(turned)
    assert request_key(request) == request_key(turned)
