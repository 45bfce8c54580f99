import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from diffopt.ir.errors import DiffoptError
from diffopt.llm.budget import Budget, Price
from diffopt.llm.client import Client, Message, Question
from diffopt.llm.transcript import Transcript

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedEndpoint


class Verdict(BaseModel):
    answer: int


QUESTION = Question((Message("system", "Be short."), Message("user", "How many?")), Verdict)


def client_for(endpoint: "ScriptedEndpoint", budget: Budget | None = None, max_retries: int = 2) -> Client:
    return Client(endpoint.url, "scripted", "key-of-eight", budget=budget, max_retries=max_retries, timeout_s=60.0)


def test_returns_the_validated_value(endpoint: "ScriptedEndpoint") -> None:
    endpoint.says({"answer": 3})
    reply = client_for(endpoint).ask(QUESTION, Transcript(None))
    assert (reply.status, reply.value) == ("ok", Verdict(answer=3))
    assert endpoint.seen[0].path == "/v1/chat/completions"
    assert endpoint.seen[0].body["response_format"]["json_schema"]["schema"] == Verdict.model_json_schema()


def test_sends_exactly_the_request_that_the_transcript_keeps(endpoint: "ScriptedEndpoint") -> None:
    endpoint.says({"answer": 3})
    transcript = Transcript(None)
    client = Client(endpoint.url, "scripted", temperature=0.5, seed=7)
    client.ask(QUESTION, transcript)
    assert endpoint.seen[0].body == transcript.entries[0].request
    assert endpoint.seen[0].body["seed"] == 7


def test_does_not_describe_this_machine_to_the_endpoint(endpoint: "ScriptedEndpoint") -> None:
    endpoint.says({"answer": 3})
    client_for(endpoint).ask(QUESTION, Transcript(None))
    assert not [name for name in endpoint.seen[0].headers if name.startswith("x-stainless")]


def test_goes_down_the_ladder_when_a_format_is_not_taken_and_remembers_it(endpoint: "ScriptedEndpoint") -> None:
    endpoint.fails(400, "response_format json_schema is not supported")
    endpoint.says({"answer": 1})
    endpoint.says({"answer": 2})
    client = client_for(endpoint)
    assert client.ask(QUESTION, Transcript(None)).value == Verdict(answer=1)
    assert client.ask(QUESTION, Transcript(None)).value == Verdict(answer=2)
    formats = [seen.body["response_format"]["type"] for seen in endpoint.seen]
    assert formats == ["json_schema", "json_object", "json_object"]
    assert '"answer"' in endpoint.seen[1].body["messages"][1]["content"]


def test_ends_the_ladder_with_json_in_a_fence(endpoint: "ScriptedEndpoint") -> None:
    endpoint.fails(400, "response_format is not supported")
    endpoint.fails(422, "response_format is not supported")
    endpoint.says('Gladly.\n```json\n{"answer": 4}\n```\nAnything else?')
    client = client_for(endpoint)
    assert client.ask(QUESTION, Transcript(None)).value == Verdict(answer=4)
    assert client.rung == "fenced"
    assert "response_format" not in endpoint.seen[2].body


def test_uses_the_older_name_of_the_token_limit_where_the_newer_is_unknown(endpoint: "ScriptedEndpoint") -> None:
    endpoint.fails(400, "Unrecognized request argument supplied: max_completion_tokens")
    endpoint.says({"answer": 1})
    client = client_for(endpoint)
    assert client.ask(QUESTION, Transcript(None)).status == "ok"
    assert "max_tokens" in endpoint.seen[1].body
    assert client.rung == "json_schema"


def test_a_request_refused_at_every_rung_is_rejected_and_nothing_is_remembered(endpoint: "ScriptedEndpoint") -> None:
    for _ in range(3):
        endpoint.fails(400, "no such thing")
    client = client_for(endpoint)
    reply = client.ask(QUESTION, Transcript(None))
    assert (reply.status, client.rung) == ("rejected", "json_schema")


def test_a_prompt_too_long_is_not_taken_for_a_format(endpoint: "ScriptedEndpoint") -> None:
    endpoint.fails(400, "context_length_exceeded: max_completion_tokens is too large")
    assert client_for(endpoint).ask(QUESTION, Transcript(None)).status == "rejected"
    assert len(endpoint.seen) == 1


def test_sends_malformed_json_back_once_with_the_validation_error(endpoint: "ScriptedEndpoint") -> None:
    endpoint.says('{"answer": "many"}')
    endpoint.says({"answer": 5})
    transcript = Transcript(None)
    assert client_for(endpoint).ask(QUESTION, transcript).value == Verdict(answer=5)
    turns = endpoint.seen[1].body["messages"]
    assert turns[-2] == {"role": "assistant", "content": '{"answer": "many"}'}
    assert "answer: Input should be a valid integer" in turns[-1]["content"]
    assert [entry.parent for entry in transcript.entries] == ["", "call-1"]


def test_gives_up_after_one_repair_turn(endpoint: "ScriptedEndpoint") -> None:
    endpoint.says("I would rather not use JSON")
    endpoint.says("{")
    reply = client_for(endpoint).ask(QUESTION, Transcript(None))
    assert (reply.status, reply.message) == ("invalid", "the answer holds no JSON object")
    assert len(endpoint.seen) == 2


def test_refusal_and_cut_off_are_statuses_and_are_not_asked_again(endpoint: "ScriptedEndpoint") -> None:
    endpoint.says("", refusal="I can't help with that")
    endpoint.says("", finish="content_filter")
    endpoint.says('{"answer": ', finish="length")
    client = client_for(endpoint)
    replies = [client.ask(QUESTION, Transcript(None)) for _ in range(3)]
    assert [reply.status for reply in replies] == ["refused", "refused", "length"]
    assert "I can't help with that" in replies[0].message
    assert len(endpoint.seen) == 3


def test_the_sdk_waits_as_long_as_a_429_says(endpoint: "ScriptedEndpoint") -> None:
    endpoint.fails(429, "slow down", Retry_After="0.6")
    endpoint.says({"answer": 6})
    transcript = Transcript(None)
    assert client_for(endpoint).ask(QUESTION, transcript).status == "ok"
    answer = transcript.entries[0].answer
    assert answer.attempts == 2
    assert answer.latency_s >= 0.6  # the SDK's own first wait is at most 0.5 s


def test_a_server_error_and_a_dropped_connection_are_retried(endpoint: "ScriptedEndpoint") -> None:
    endpoint.fails(500, "oops", Retry_After="0.01")
    endpoint.drops()
    endpoint.says({"answer": 7})
    client, transcript = client_for(endpoint), Transcript(None)
    assert client.ask(QUESTION, transcript).value == Verdict(answer=7)
    assert transcript.entries[0].answer.attempts == 3
    assert client.spent.calls == 1


def test_what_stays_broken_is_unavailable(endpoint: "ScriptedEndpoint") -> None:
    endpoint.fails(503, "down for\nmaintenance")
    endpoint.drops()
    client = client_for(endpoint, max_retries=0)
    first, second = (client.ask(QUESTION, Transcript(None)) for _ in range(2))
    assert (first.status, second.status) == ("unavailable", "unavailable")
    assert first.message == f"{endpoint.url}: HTTP 503: down for maintenance"
    assert "no connection" in second.message


def test_a_silent_endpoint_times_out_and_counts_as_paid(endpoint: "ScriptedEndpoint") -> None:
    endpoint.hangs()
    client = Client(endpoint.url, "scripted", max_retries=0, timeout_s=0.2, answer_tokens=500)
    reply = client.ask(QUESTION, Transcript(None))
    assert (reply.status, reply.message) == ("unavailable", f"{endpoint.url}: no answer within 0.2 s")
    assert client.spent.usage.completion_tokens == 500


def test_nobody_listening_is_unavailable(endpoint: "ScriptedEndpoint") -> None:
    client = client_for(endpoint, max_retries=0)
    endpoint.close()
    assert client.ask(QUESTION, Transcript(None)).status == "unavailable"


@pytest.mark.parametrize(("status", "hint"), [(401, "check the key"), (404, "check the base URL")])
def test_a_wrong_key_or_model_is_rejected_with_what_to_check(
    endpoint: "ScriptedEndpoint", status: int, hint: str
) -> None:
    endpoint.fails(status, "no")
    reply = client_for(endpoint).ask(QUESTION, Transcript(None))
    assert reply.status == "rejected"
    assert hint in reply.message


def test_the_call_budget_counts_repair_turns_and_failures(endpoint: "ScriptedEndpoint") -> None:
    endpoint.says("no")
    endpoint.fails(401, "no")
    client = client_for(endpoint, Budget(calls=2))
    assert client.ask(QUESTION, Transcript(None)).status == "rejected"
    reply = client.ask(QUESTION, Transcript(None))
    assert (reply.status, reply.message) == ("budget", "budget of 2 calls is used up")
    assert len(endpoint.seen) == 2


def test_the_token_budget_is_reserved_before_a_call_and_settled_after(endpoint: "ScriptedEndpoint") -> None:
    endpoint.says({"answer": 1}, usage=(900, 50))
    endpoint.says({"answer": 1}, usage=(900, 50))
    client = Client(endpoint.url, "scripted", budget=Budget(tokens=2000), answer_tokens=500)
    statuses = [client.ask(QUESTION, Transcript(None)).status for _ in range(3)]
    assert statuses == ["ok", "ok", "budget"]
    assert client.spent.usage.tokens == 1900


def test_an_answer_without_usage_counts_as_what_was_reserved(endpoint: "ScriptedEndpoint") -> None:
    endpoint.says({"answer": 1}, usage=None)
    client = Client(endpoint.url, "scripted", answer_tokens=500)
    client.ask(QUESTION, Transcript(None))
    assert client.spent.usage.completion_tokens == 500


def test_money_adds_up_and_ends_the_asking(endpoint: "ScriptedEndpoint") -> None:
    for _ in range(3):
        endpoint.says({"answer": 1}, usage=(1000, 100))
    price = Price(prompt_per_million=2.0, completion_per_million=10.0)
    budget = Budget(money=0.01, price=price)
    client = Client(endpoint.url, "scripted", budget=budget, answer_tokens=400)
    statuses = [client.ask(QUESTION, Transcript(None)).status for _ in range(3)]
    assert statuses == ["ok", "ok", "budget"]
    assert client.spent.money == pytest.approx(0.006)


def test_a_missing_extra_is_named(endpoint: "ScriptedEndpoint", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(DiffoptError, match=r"pip install 'diffopt\[llm\]'"):
        client_for(endpoint).check()


URLS = ["", "localhost:8000", "ftp://x/v1", "http://", "http://[::1/v1", "http://h:99999/v1", "http://a b/v1"]
URLS += ["http://h/v1?key=1", "http://u:p@h/v1", "http://h\x00/v1", "http://\u2603.invalid/v1", f"http://{'a' * 64}/v1"]


@pytest.mark.parametrize("url", URLS)
def test_refuses_a_url_that_cannot_be_one(url: str) -> None:
    with pytest.raises(DiffoptError, match="LLM base URL"):
        Client(url, "m")


def test_refuses_an_empty_model_name_and_a_money_budget_without_a_price() -> None:
    with pytest.raises(DiffoptError, match="no model named"):
        Client("http://127.0.0.1:1/v1", " ")
    with pytest.raises(DiffoptError, match="needs a price"):
        Budget(money=1.0)


def test_an_html_page_with_status_200_is_invalid_not_a_crash(endpoint: "ScriptedEndpoint") -> None:
    for _ in range(2):
        endpoint.says("")
        endpoint.script[-1] = replace(endpoint.script[-1], body=b"<html>\xff</html>")
    reply = client_for(endpoint).ask(QUESTION, Transcript(None))
    assert (reply.status, reply.message) == ("invalid", "the answer holds no text")
    assert json.dumps(reply.text) == '""'


def test_a_resumed_run_asks_in_the_way_that_worked_before(endpoint: "ScriptedEndpoint", tmp_path: Path) -> None:
    endpoint.fails(400, "response_format is not supported")
    endpoint.fails(400, "response_format is not supported")
    endpoint.says('```json\n{"answer": 3}\n```')
    path = tmp_path / "llm.jsonl"
    first = Client(endpoint.url, "scripted", max_retries=0)
    first.ask(QUESTION, Transcript(path))
    again = Client(endpoint.url, "scripted", max_retries=0)
    transcript = Transcript(path, mode="record")
    again.take_up(transcript)
    assert again.rung == first.rung == "fenced"
    again.ask(QUESTION, transcript)
    assert len(endpoint.seen) == 3


def test_a_resumed_run_has_spent_what_was_spent_and_pays_for_nothing_twice(
    endpoint: "ScriptedEndpoint", tmp_path: Path
) -> None:
    for answer in (1, 2, 3):
        endpoint.says({"answer": answer}, usage=(100, 20))
    path, other = tmp_path / "llm.jsonl", replace(QUESTION, messages=(Message("user", "And now?"),))
    budget = Budget(calls=3, price=Price(1.0, 10.0))
    first = client_for(endpoint, budget)
    transcript = Transcript(path, mode="record")
    for question in (QUESTION, other):
        first.ask(question, transcript)
    again, transcript = client_for(endpoint, budget), Transcript(path, mode="record")
    again.take_up(transcript)
    assert again.spent == first.spent, "also what is not asked for again"
    assert again.ask(other, transcript).value == Verdict(answer=2)
    assert again.spent == first.spent
    assert again.ask(other, transcript).value == Verdict(answer=3)
    assert again.ask(other, transcript).status == "budget"
    assert (again.spent.calls, again.spent.usage.tokens) == (3, 360)
    assert again.spent.money == pytest.approx(900 / 1e6)
    assert len(endpoint.seen) == 3


def test_no_text_names_the_users_home(endpoint: "ScriptedEndpoint") -> None:
    endpoint.says({"answer": 1})
    said = 'File "/home/ann/run/pipeline.py", line 3; /home/ann; /home/anna/x'
    client = Client(endpoint.url, "scripted", max_retries=0, home="/home/ann")
    client.ask(replace(QUESTION, messages=(Message("user", said),)), Transcript(None))
    assert endpoint.seen[0].body["messages"][0]["content"] == 'File "~/run/pipeline.py", line 3; ~; /home/anna/x'
