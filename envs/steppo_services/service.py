"""Calls to a JSON service: bounded in time, in number and in size, from any thread."""

import os
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self, TypeVar

import httpx
import stamina
from pydantic import JsonValue, TypeAdapter, ValidationError

from steppo_env.errors import InvalidInput, TransportError
from steppo_env.tools import explain
from steppo_services.urls import check_url

__all__ = ["JsonService"]

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10.0
MAX_WAIT_S = 30.0
"""Longest pause before a call is sent again, whatever the service asks for."""

PASSING_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
"""Answers of a service that is busy or restarting."""


class JsonService:
    """One service, called over HTTP with JSON.

    Only for calls that change nothing over there: a call whose answer was lost, or that was answered
    by 408, 429, 500, 502, 503 or 504, is sent again, and Retry-After is honoured up to half a
    minute. Safe to use from several threads.

    Args:
        base_url: Such as `http://127.0.0.1:8000/v1`; the paths of the calls are appended to it.
        what: Names the service in errors, such as "the embeddings endpoint".
        api_key_env: Environment variable that holds the key; None sends none.
        api_key_header: Header of the key; `Authorization` gets it as a bearer token.
        timeout_s: For one attempt; no attempt begins later than `attempts` times this after the first.
        attempts: Most times that one call is sent.
        per_second: Most calls a second over all threads; None is without limit.
        max_bytes: Longest answer that is read.
        num_connections: Most calls at a time.
        transport: Replaces the network, such as `httpx.WSGITransport(app)`.

    Raises:
        InvalidInput: The URL is none, or the environment variable is not set.
    """

    def __init__(
        self,
        base_url: str,
        what: str,
        *,
        api_key_env: str | None = None,
        api_key_header: str = "Authorization",
        timeout_s: float = 60.0,
        attempts: int = 4,
        per_second: float | None = None,
        max_bytes: int = 64 << 20,
        num_connections: int = 16,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        check_url(base_url, what, "http://127.0.0.1:8000/v1")
        self.base_url = base_url.rstrip("/")
        self._what = what
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._max_bytes = max_bytes
        self._pace = _Pace(per_second)
        self._http = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
            limits=httpx.Limits(
                max_connections=num_connections, max_keepalive_connections=num_connections
            ),
            headers=_key_header(what, api_key_env, api_key_header),
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, query: Mapping[str, str | int], answer: TypeAdapter[T]) -> T:
        """Send a GET and return its answer.

        Raises:
            TransportError: The service cannot be reached, refuses, or answers something else.
        """
        return self._call("GET", path, answer, query=query)

    def post(self, path: str, body: JsonValue, answer: TypeAdapter[T]) -> T:
        """Send a POST and return its answer.

        Raises:
            TransportError: The service cannot be reached, refuses, or answers something else.
        """
        return self._call("POST", path, answer, body=body)

    def _call(
        self,
        method: str,
        path: str,
        answer: TypeAdapter[T],
        *,
        query: Mapping[str, str | int] | None = None,
        body: JsonValue = None,
    ) -> T:
        request = self._http.build_request(
            method,
            f"{self.base_url}/{path.lstrip('/')}",
            params=query,
            json=body if method == "POST" else None,
        )
        content = self._send(request)
        try:
            return answer.validate_json(content)
        except ValidationError as error:
            raise self._error(request, f"answered in another form: {explain(error)}") from None

    def _send(self, request: httpx.Request) -> bytes:
        for attempt in stamina.retry_context(
            on=_may_repeat,
            attempts=self._attempts,
            wait_max=5.0,
            timeout=self._timeout_s * self._attempts,
        ):
            with attempt:
                self._pace.wait()
                return self._send_once(request)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _send_once(self, request: httpx.Request) -> bytes:
        deadline = time.monotonic() + self._timeout_s
        try:
            response = self._http.send(request, stream=True)
            try:
                content = self._read(request, response, deadline)
            finally:
                response.close()
        except httpx.HTTPError as error:
            raise self._error(request, f"failed: {str(error) or type(error).__name__}") from error
        if response.is_success:
            return content
        detail = content[:200].decode(errors="replace")
        raise self._error(
            request,
            f"answered {response.status_code}: {detail!r}",
            http_status=response.status_code,
            **_retry_after(response),
        )

    def _read(self, request: httpx.Request, response: httpx.Response, deadline: float) -> bytes:
        """Return the body, come in until the deadline: a timeout of httpx is for one chunk only."""
        parts: list[bytes] = []
        size = 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > self._max_bytes:
                limit = f"{self._max_bytes} bytes"
                raise self._error(request, f"answered more than {limit}", http_status=200)
            if time.monotonic() > deadline:
                raise self._error(request, f"took longer than {self._timeout_s:g} s to answer")
        return b"".join(parts)

    def _error(self, request: httpx.Request, problem: str, **members: JsonValue) -> TransportError:
        # Without its query: that is the policy's text, and may be long.
        url = request.url.copy_with(query=None, username=None, password=None)
        return TransportError(f"{self._what}: {request.method} {url} {problem}", **members)


class _Pace:
    """Spaces calls evenly, so that there are never more than so many a second."""

    def __init__(self, per_second: float | None) -> None:
        if per_second is not None and not per_second > 0:
            raise InvalidInput(f"per_second is above 0, or None for no limit; got {per_second}")
        self._interval_s = 0.0 if per_second is None else 1.0 / per_second
        self._lock = threading.Lock()
        self._next_s = 0.0

    def wait(self) -> None:
        """Return when it is this call's turn."""
        if not self._interval_s:
            return
        with self._lock:
            now_s = time.monotonic()
            turn_s = max(now_s, self._next_s)
            self._next_s = turn_s + self._interval_s
        time.sleep(turn_s - now_s)


def _key_header(what: str, api_key_env: str | None, header: str) -> dict[str, str]:
    if api_key_env is None:
        return {}
    key = os.environ.get(api_key_env, "").strip()
    if not (key and key.isascii() and key.isprintable()):
        # The key itself is never shown, nor may it get into a header's own error.
        raise InvalidInput(
            f"{what} takes its key from the environment variable {api_key_env}, "
            "which is not set, empty, or no single line of ASCII text"
        )
    return {header: f"Bearer {key}" if header == "Authorization" else key}


def _retry_after(response: httpx.Response) -> dict[str, JsonValue]:
    text = response.headers.get("retry-after", "")
    is_seconds = text.isascii() and text.isdigit()
    return (
        {"retry_after_s": int(text[:9])} if is_seconds else {}
    )  # int() refuses thousands of digits


def _may_repeat(error: Exception) -> bool | float:
    """Return whether to send a call again, or after how many seconds."""
    if not isinstance(error, TransportError):
        return False
    if error.members.get("http_status", 503) not in PASSING_STATUSES:
        return False
    wait_s = error.members.get("retry_after_s")
    return min(float(wait_s), MAX_WAIT_S) if isinstance(wait_s, int | float) else True
