import logging
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from diffopt.ir.errors import DiffoptError
from diffopt.llm.client import Client, Message, Question
from diffopt.llm.endpoint import Endpoint
from diffopt.llm.plans import Plans
from diffopt.llm.transcript import Transcript

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedEndpoint

KEY = "sk-planted-0123456789-never-to-be-seen"


def test_the_key_is_in_the_header_and_nowhere_else(
    endpoint: "ScriptedEndpoint",
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint.says(f'{{"plans": "your key is {KEY}"}}')
    endpoint.says("", refusal=f"no, {KEY}")
    endpoint.fails(401, f"Incorrect API key provided: {KEY}", x_request_id="1")
    endpoint.script[-1] = replace(endpoint.script[-1], body=endpoint.script[-1].body.replace(b"sk-", b"\\u0073k-"))
    endpoint.fails(429, f"{KEY} is out of quota")
    endpoint.drops()
    client = Client(endpoint.url, "scripted", KEY, max_retries=0)
    transcript = Transcript(tmp_path / "run" / "llm.jsonl")
    question = Question((Message("system", "s"), Message("user", f"a script that holds {KEY}")), Plans)
    replies = [client.ask(question, transcript) for _ in range(4)]

    assert all(seen.headers["authorization"] == f"Bearer {KEY}" for seen in endpoint.seen)
    assert all(KEY not in str(seen.body) for seen in endpoint.seen)
    assert [reply.status for reply in replies] == ["refused", "rejected", "unavailable", "unavailable"]
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 1
    assert "[key]" in written[0]
    said = [repr(client), repr(vars(client)), repr(transcript.entries), caplog.text, *capfd.readouterr()]
    said += [reply.text + reply.message for reply in replies]
    assert KEY not in "\n".join(written + said)


@pytest.mark.parametrize("key", [f"{KEY}\r\nX-Evil: 1", f"{KEY} ", f"ключ-{KEY}"])
def test_an_unusable_key_is_refused_without_being_quoted(key: str) -> None:
    if key.strip() == KEY:
        Client("http://127.0.0.1:1/v1", "m", key)  # a trailing newline or space comes from a file
        return
    with pytest.raises(DiffoptError) as error:
        Client("http://127.0.0.1:1/v1", "m", key)
    assert KEY not in "".join(traceback.format_exception(error.value))


def test_a_password_in_the_url_is_refused_without_being_quoted() -> None:
    with pytest.raises(DiffoptError) as error:
        Client(f"http://user:{KEY}@127.0.0.1:1/v1", "m")
    assert KEY not in "".join(traceback.format_exception(error.value))


def test_a_key_too_short_to_be_a_secret_does_not_eat_words() -> None:
    endpoint = Endpoint("http://127.0.0.1:1/v1", "none", max_retries=0, timeout_s=1.0, clock=lambda: 0.0)
    assert endpoint.clean({"said": "none of them"}) == {"said": "none of them"}


def test_text_that_cannot_be_encoded_is_made_so() -> None:
    endpoint = Endpoint("http://127.0.0.1:1/v1", "", max_retries=0, timeout_s=1.0, clock=lambda: 0.0)
    assert endpoint.clean(["a\ud800b"]) == ["a?b"]


def test_does_not_follow_a_redirect_to_another_host(endpoint: "ScriptedEndpoint") -> None:
    endpoint.fails(307, "over there", Location="http://127.0.0.1:1/v1/chat/completions")
    client = Client(endpoint.url, "scripted", KEY, max_retries=0)
    reply = client.ask(Question((Message("user", "?"),), Plans), Transcript(None))
    assert reply.status == "rejected"
    assert "HTTP 307" in reply.message


def test_the_environment_does_not_change_key_or_address(
    endpoint: "ScriptedEndpoint", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    endpoint.says({"plans": []})
    client = Client(endpoint.url, "scripted", max_retries=0)
    assert client.ask(Question((Message("user", "?"),), Plans), Transcript(None)).status == "ok"
    assert KEY not in str(endpoint.seen[0].headers)


def test_a_proxy_that_cannot_be_used_is_one_clear_line(
    endpoint: "ScriptedEndpoint", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"gopher://user:{KEY}@127.0.0.1:1")
    client = Client(endpoint.url, "scripted", max_retries=0)
    with pytest.raises(DiffoptError, match="cannot use the proxy") as error:
        client.ask(Question((Message("user", "?"),), Plans), Transcript(None))
    assert KEY not in "".join(traceback.format_exception(error.value))
