"""Ask any OpenAI-compatible endpoint for one JSON object, within a budget, and say how it went."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, JsonValue

from diffopt.ir.errors import DiffoptError
from diffopt.llm.answer import Status, one_line, read_completion, read_json
from diffopt.llm.budget import Budget, Ledger, Spent, Usage
from diffopt.llm.endpoint import Endpoint
from diffopt.llm.transcript import Answer, Call, Entry, Transcript, canonical

Shape = TypeVar("Shape", bound=BaseModel)
Rung = Literal["json_schema", "json_object", "fenced"]
RUNGS: tuple[Rung, ...] = ("json_schema", "json_object", "fenced")
TOKEN_LIMITS = ("max_completion_tokens", "max_tokens")
"""Newer and older name of one parameter. Which one an endpoint takes is found out by asking, not by model name."""

_HINTS = {401: "check the key", 403: "check the key", 404: "check the base URL and the model name"}


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Question(Generic[Shape]):
    """What is asked: the conversation so far, and the JSON the answer must be.

    Args:
        schema: JSON schema sent to the endpoint; that of `shape` when None. `shape` decides, here.
        repairs: how often a malformed answer goes back with its validation error.
        template: name and hash of the prompt template, for the transcript.
        parent: id of the call this one follows up.
    """

    messages: tuple[Message, ...]
    shape: type[Shape]
    schema: Mapping[str, JsonValue] | None = None
    repairs: int = 1
    template: str = ""
    parent: str = ""

    def follow(self, reply: "Reply[Shape]", instruction: str) -> "Question[Shape]":
        """Return the next turn, without a repair: the model's answer, and what to do about it."""
        turns = (*self.messages, Message("assistant", reply.text), Message("user", instruction))
        return Question(turns, self.shape, self.schema, 0, self.template, reply.call)


@dataclass(frozen=True)
class Reply(Generic[Shape]):
    """How a question ended. `value` is there exactly when `status` is "ok"."""

    status: Status
    value: Shape | None
    text: str  # what the model said
    message: str  # one line, or the validation errors one a line; empty when ok
    call: str  # id of the last call in the transcript, or ""
    question: Question[Shape]  # as it was put last, repair turn included


@dataclass(frozen=True)
class Problem:
    """A question that brought nothing: how it ended, in one line, and where it stands in the transcript."""

    status: Status
    message: str
    call: str


class Client:
    """A model behind a chat-completions endpoint.

    Everything comes in as arguments. The SDK retries transport errors; this layer retries content, once. The key is
    taken out of every text that leaves this class. Not thread-safe.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str = "",
        *,
        budget: Budget | None = None,
        answer_tokens: int = 8192,
        temperature: float | None = None,
        seed: int | None = None,
        max_retries: int = 3,
        timeout_s: float = 180.0,
        home: str = "",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Describe a model; nothing is sent.

        Args:
            base_url: up to and with the version, such as `http://localhost:8000/v1`.
            api_key: may be empty for a local server.
            answer_tokens: token limit of one answer.
            temperature, seed: sent only when given.
            timeout_s: longest silence of the endpoint, in seconds.
            home: the user's home folder, which no text names to the model; empty for none.

        Raises:
            DiffoptError: the URL, the model name or the key cannot be used.
        """
        if not model.strip():
            raise DiffoptError("no model named for the LLM endpoint", hint="name one, such as --llm-model NAME")
        self.model = model.strip()
        self.answer_tokens = answer_tokens
        self._endpoint = Endpoint(base_url, api_key, max_retries=max_retries, timeout_s=timeout_s, clock=clock)
        self._ledger = Ledger(budget or Budget())
        self._sampling: dict[str, JsonValue] = {} if temperature is None else {"temperature": temperature}
        if seed is not None:
            self._sampling["seed"] = seed
        self._rung = 0
        self._token_limit = 0
        self._home = home.rstrip("/")
        self._paid = False  # whether what a transcript holds is in the ledger already

    def __repr__(self) -> str:
        return f"Client({self._endpoint.base_url!r}, {self.model!r})"

    @property
    def spent(self) -> Spent:
        """Calls, tokens and money so far; calls answered by a transcript count like any, once."""
        return self._ledger.spent

    @property
    def rung(self) -> Rung:
        """The way of asking for JSON that the endpoint takes, as far as is known."""
        return RUNGS[self._rung]

    def take_up(self, transcript: Transcript) -> None:
        """Go on where a transcript ends: its calls count, and JSON is asked for in the way that worked last.

        A resumed run must put its questions as before, and has spent what was spent. Answers that come from the transcript cost
        nothing more.
        """
        self._paid = True
        for entry in transcript.entries:
            self._ledger.charge(_used(entry.answer, self._reserve(entry.request)))
        for entry in reversed(transcript.entries):
            if entry.answer.outcome == "response":
                form = entry.request.get("response_format")
                rung = form.get("type") if isinstance(form, dict) else "fenced"
                self._rung = next(number for number, name in enumerate(RUNGS) if name in (rung, "fenced"))
                self._token_limit = next(n for n, name in enumerate(TOKEN_LIMITS) if name in entry.request)
                return

    def check(self) -> None:
        """Load the SDK. The first live call does so too; call this to learn early that the extra is missing.

        Raises:
            DiffoptError: the extra is not installed.
        """
        self._endpoint.check()

    def ask(self, question: Question[Shape], transcript: Transcript) -> Reply[Shape]:
        """Put a question; a malformed answer goes back with its validation error.

        Raises:
            DiffoptError: the extra is missing, replay misses, or the transcript cannot be written.
        """
        reply = self._turn(question, transcript)
        for _ in range(question.repairs):
            if reply.status != "invalid":
                return reply
            instruction = f"That answer is not valid:\n{reply.message}\nAnswer again, with the JSON object alone."
            reply = self._turn(reply.question.follow(reply, instruction), transcript)
        return reply

    def _turn(self, question: Question[Shape], transcript: Transcript) -> Reply[Shape]:
        """Ask once, moving down the ladder while the endpoint does not take the request as it is put."""
        rung, token_limit, parent = self._rung, self._token_limit, question.parent
        while True:
            request = self._request(question, RUNGS[rung], TOKEN_LIMITS[token_limit])
            entry = self._exchange(Call(request, self._endpoint.base_url, question.template, parent), transcript)
            if isinstance(entry, str):
                return Reply("budget", None, "", entry, parent, question)
            if entry.answer.outcome == "response":
                self._rung, self._token_limit = rung, token_limit
                return _read(entry, question)
            step = _next_try(entry.answer, rung, token_limit)
            if step is None:
                return _failed(entry, question)
            (rung, token_limit), parent = step, entry.id

    def _exchange(self, call: Call, transcript: Transcript) -> Entry | str:
        """Make one call within the budget, or return the bound it would break."""
        if self._paid and transcript.holds(call.request):
            return transcript.exchange(call, self._endpoint.send)
        reserved = self._reserve(call.request)
        refusal = self._ledger.reserve(reserved)
        if refusal:
            return refusal
        used = reserved
        try:
            entry = transcript.exchange(call, self._endpoint.send)
            used = _used(entry.answer, reserved)
        finally:
            self._ledger.settle(reserved, used)
        return entry

    def _away(self, text: str) -> str:
        """Return a text, such as a traceback, that does not say who is at home here."""
        return re.sub(rf"{re.escape(self._home)}(?![\w.-])", "~", text) if self._home else text

    def _reserve(self, request: Mapping[str, JsonValue]) -> Usage:
        # Three bytes a token is more than most texts need; settled with the endpoint's own figure after the call.
        return Usage(len(canonical(request).encode()) // 3, self.answer_tokens)

    def _request(self, question: Question[Shape], rung: Rung, token_limit: str) -> dict[str, JsonValue]:
        schema = dict(question.schema or question.shape.model_json_schema())
        turns = [{"role": message.role, "content": message.content} for message in question.messages]
        if rung != "json_schema":
            form = "and nothing else" if rung == "json_object" else "in a ```json block"
            rule = f"Answer with one JSON object {form}. It must satisfy this JSON schema: {canonical(schema)}"
            turns.insert(1, {"role": "system", "content": rule})
        messages: list[JsonValue] = [
            {"role": turn["role"], "content": self._endpoint.clean(self._away(turn["content"]))} for turn in turns
        ]
        request = {"model": self.model, "messages": messages, token_limit: self.answer_tokens, **self._sampling}
        if rung == "json_schema":
            form_of_answer: JsonValue = {"name": question.shape.__name__.lower(), "strict": True, "schema": schema}
            request["response_format"] = {"type": "json_schema", "json_schema": form_of_answer}
        if rung == "json_object":
            request["response_format"] = {"type": "json_object"}
        return request


def _read(entry: Entry, question: Question[Shape]) -> Reply[Shape]:
    completion = read_completion(entry.answer.body)
    if completion.status != "ok":
        return Reply(completion.status, None, completion.text, completion.message, entry.id, question)
    value = read_json(completion.text, question.shape)
    if isinstance(value, str):
        return Reply("invalid", None, completion.text, value, entry.id, question)
    return Reply("ok", value, completion.text, "", entry.id, question)


def _failed(entry: Entry, question: Question[Shape]) -> Reply[Shape]:
    answer = entry.answer
    refused = answer.outcome == "http-error" and answer.status < 500 and answer.status not in (408, 409, 429)
    said = f"HTTP {answer.status}: " if answer.status else ""
    message = one_line(f"{entry.endpoint}: {said}{_error_text(answer.body)}")
    hint = _HINTS.get(answer.status)
    text = f"{message}; {hint}" if hint else message
    return Reply("rejected" if refused else "unavailable", None, "", text, entry.id, question)


def _next_try(answer: Answer, rung: int, token_limit: int) -> tuple[int, int] | None:
    """Return the rung and the name of the token limit to try after a request that was not taken, or None."""
    if answer.outcome != "http-error" or answer.status not in (400, 422):
        return None
    text = canonical({"body": answer.body})
    if "context_length" in text:
        return None
    if TOKEN_LIMITS[token_limit] in text and token_limit + 1 < len(TOKEN_LIMITS):
        return rung, token_limit + 1
    return (rung + 1, token_limit) if rung + 1 < len(RUNGS) else None


def _used(answer: Answer, reserved: Usage) -> Usage:
    if answer.outcome == "http-error":
        return Usage()
    if answer.outcome != "response":
        return reserved  # it may have been answered, and paid for, before the line went dead
    return read_completion(answer.body).usage or reserved


def _error_text(body: JsonValue) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    text = error.get("message", error) if isinstance(error, dict) else error
    return text if isinstance(text, str) else canonical({"error": text})
