"""Send one request to an OpenAI-compatible endpoint. The key goes into the request's header and nowhere else."""

import importlib
from collections.abc import Callable, Mapping, MutableMapping
from types import ModuleType
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from pydantic import JsonValue

from diffopt.ir.errors import DiffoptError
from diffopt.llm.answer import parse_json
from diffopt.llm.transcript import Answer, Outcome

if TYPE_CHECKING:
    import openai

_SHORTEST_SECRET = 8  # local servers take keys such as "x" or "none": no secret, and in every second word


class Endpoint:
    """One base URL and one key. Retries of transport errors are the SDK's, which honours Retry-After.

    The environment is not read here. The SDK and its HTTP library read theirs: proxies, certificates, OPENAI_ORG_ID,
    OPENAI_CUSTOM_HEADERS; never the key or the address. Not thread-safe.
    """

    def __init__(
        self, base_url: str, api_key: str, *, max_retries: int, timeout_s: float, clock: Callable[[], float]
    ) -> None:
        """Describe an endpoint; nothing is sent.

        Raises:
            DiffoptError: the URL or the key cannot be used.
        """
        self.base_url = _checked_url(base_url.strip())
        self.max_retries = max_retries
        self.timeout_s = timeout_s
        self._key = _Secret(_checked_key(api_key.strip()))
        self._clock = clock
        self._attempts = 0

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r})"

    def check(self) -> None:
        """Load the SDK, to learn early that it is missing.

        Raises:
            DiffoptError: the extra is not installed.
        """
        _sdk()

    def send(self, request: Mapping[str, JsonValue]) -> Answer:
        """Send a request. Every failure of the transport is an answer, not an exception.

        Raises:
            DiffoptError: the extra is not installed, or the proxy in the environment cannot be used.
        """
        sdk = _sdk()
        outcome: Outcome
        self._attempts, start = 0, self._clock()
        try:
            with self._client() as client:
                # The raw response, by the SDK's documented way of calling any path: only JSON is wanted of it.
                raw = importlib.import_module("httpx2").Response
                response: _Response = client.post("/chat/completions", cast_to=raw, body=dict(request))
                outcome, status, text = "response", response.status_code, response.text
        except sdk.APITimeoutError:
            outcome, status, text = "timeout", 0, f"no answer within {self.timeout_s:g} s"
        except sdk.APIConnectionError as error:
            outcome, status, text = "no-connection", 0, f"no connection ({type(error.__cause__ or error).__name__})"
        except sdk.APIStatusError as error:
            outcome, status, text = "http-error", error.status_code, error.response.text
        return Answer(outcome, status, self.clean(_parsed(text)), self._attempts, round(self._clock() - start, 6))

    def _client(self) -> "openai.OpenAI":
        """Open a client for one request: they are minutes apart, and nothing is left open between them."""
        sdk = _sdk()
        try:
            # No redirects: the endpoint the user named is the only one that sees the prompt.
            http = sdk.DefaultHttpxClient(event_hooks={"request": [self._on_request]}, follow_redirects=False)
        except (ValueError, ImportError):  # not quoted: a proxy's URL may hold a password
            raise DiffoptError(
                "cannot use the proxy set in the environment for the LLM",
                hint="check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY",
            ) from None
        client: openai.OpenAI = sdk.OpenAI(
            base_url=self.base_url,
            api_key=self._key.text or "none",  # the SDK wants one; most local servers do not
            max_retries=self.max_retries,
            timeout=self.timeout_s,
            http_client=http,
        )
        return client

    def clean(self, value: JsonValue) -> JsonValue:
        """Return `value` with the key taken out and every text encodable."""
        if isinstance(value, str):
            text, key = value.encode("utf-8", "replace").decode(), self._key.text
            return text.replace(key, "[key]") if len(key) >= _SHORTEST_SECRET else text
        if isinstance(value, list):
            return [self.clean(item) for item in value]
        if isinstance(value, dict):
            return {str(self.clean(name)): self.clean(item) for name, item in value.items()}
        return value

    def _on_request(self, request: "_Request") -> None:
        """Count an HTTP request, and drop the SDK's headers that describe this machine."""
        self._attempts += 1
        for name in [name for name in request.headers if name.lower().startswith("x-stainless-")]:
            del request.headers[name]


def _sdk() -> ModuleType:
    try:
        return importlib.import_module("openai")
    except ImportError:
        raise DiffoptError("the LLM planner needs the extra llm", hint="pip install 'diffopt[llm]'") from None


class _Response(Protocol):
    status_code: int
    text: str


class _Request(Protocol):
    @property
    def headers(self) -> MutableMapping[str, str]: ...


class _Secret:
    """A text that does not show itself."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "[key]"


def _parsed(text: str) -> JsonValue:
    try:
        return parse_json(text)
    except (ValueError, RecursionError):
        return text


def _checked_key(key: str) -> str:
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise DiffoptError("the LLM key has characters that an HTTP header cannot carry", hint="check how it was set")
    return key


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        usable = parts.scheme in ("http", "https") and bool(host) and parts.port != 0
        usable = usable and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        usable = False
    if not usable:
        raise DiffoptError("the LLM base URL is not an http or https URL", hint="such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise DiffoptError("the LLM base URL must not hold a user, a password or a query", hint="give the key apart")
    return url.rstrip("/")
