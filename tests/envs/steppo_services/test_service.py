"""Calls to a JSON service: repeated where that is safe, bounded in every way, never half an answer."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol

import pytest
import stamina
import stamina.instrumentation
from pydantic import BaseModel, TypeAdapter

from steppo_env.errors import InvalidInput, TransportError
from steppo_services import JsonService

Reply = Callable[[BaseHTTPRequestHandler], None]


class Scripted(Protocol):
    url: str
    replies: list[Reply]
    requests: list[str]
    headers: list[dict[str, str]]
    bodies: list[bytes]
    most_at_once: int
    is_stopping: threading.Event


class Answer(BaseModel):
    value: int


ANSWER = TypeAdapter(Answer)
GOOD = b'{"value": 3}'


def reply(status: int, body: bytes = b"", **headers: str) -> Reply:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def service(server: Scripted, **settings: Any) -> JsonService:
    return JsonService(server.url, "the oracle", **{"timeout_s": 5.0, **settings})


class Waited(Exception):
    """Raised in the place of a pause."""


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Collect the pauses before repeated calls, in seconds; the first one is not made, but raised."""
    found: list[float] = []

    def note(details: stamina.instrumentation.RetryDetails) -> None:
        found.append(details.wait_for)
        raise Waited

    stamina.instrumentation.set_on_retry_hooks([note])
    yield found
    stamina.instrumentation.set_on_retry_hooks(None)


@pytest.fixture
def no_pauses() -> Iterator[None]:
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


def test_a_call_sends_its_query_or_its_body_and_reads_the_answer(scripted: Scripted) -> None:
    scripted.replies = [reply(200, GOOD)]
    with service(scripted) as oracle:
        assert oracle.get("/search", {"query": "a b&c", "limit": 2}, ANSWER) == Answer(value=3)
        assert oracle.post("ask", {"text": "é"}, ANSWER) == Answer(value=3)
    assert scripted.requests == ["GET /search?query=a+b%26c&limit=2", "POST /ask"]
    assert scripted.bodies[0] == b""
    assert json.loads(scripted.bodies[1]) == {"text": "é"}


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_service_is_asked_again(scripted: Scripted, status: int) -> None:
    scripted.replies = [reply(status), reply(status, b"later"), reply(200, GOOD)]
    with service(scripted) as oracle:
        assert oracle.post("ask", {}, ANSWER).value == 3
    assert len(scripted.requests) == 3


@pytest.mark.usefixtures("no_pauses")
def test_a_service_that_stays_busy_is_asked_so_many_times_and_no_more(scripted: Scripted) -> None:
    scripted.replies = [reply(503, b"no room")]
    with (
        service(scripted, attempts=3) as oracle,
        pytest.raises(
            TransportError, match=r"the oracle: POST http://\S+/ask answered 503.*no room"
        ),
    ):
        oracle.post("ask", {}, ANSWER)
    assert len(scripted.requests) == 3


@pytest.mark.usefixtures("no_pauses")
def test_a_call_whose_answer_was_lost_is_sent_again(scripted: Scripted) -> None:
    scripted.replies = [hang_up, reply(200, GOOD)]
    with service(scripted) as oracle:
        assert oracle.post("ask", {}, ANSWER).value == 3


@pytest.mark.parametrize("status", [302, 400, 401, 404, 413, 422, 501])
def test_a_refusal_is_final(scripted: Scripted, status: int) -> None:
    scripted.replies = [reply(status, b"because")]
    with service(scripted) as oracle, pytest.raises(TransportError, match="because") as caught:
        oracle.get("search", {"query": "the policy's own words"}, ANSWER)
    assert len(scripted.requests) == 1
    assert caught.value.members["http_status"] == status
    assert "words" not in caught.value.detail


def test_retry_after_is_the_pause(scripted: Scripted, pauses: list[float]) -> None:
    scripted.replies = [reply(429, retry_after="7")]
    with service(scripted) as oracle, pytest.raises(Waited):
        oracle.post("ask", {}, ANSWER)
    assert pauses == [7.0]


@pytest.mark.parametrize("asked", ["86400", "9" * 5000], ids=["a day", "for ever"])
def test_no_retry_after_makes_a_call_wait_longer_than_half_a_minute(
    scripted: Scripted, pauses: list[float], asked: str
) -> None:
    scripted.replies = [reply(503, retry_after=asked)]
    with service(scripted) as oracle, pytest.raises(Waited):
        oracle.post("ask", {}, ANSWER)
    assert pauses == [30.0]


@pytest.mark.parametrize("asked", ["Wed, 21 Oct 2026 07:28:00 GMT", "soon", "-3", "1.5"])
def test_another_form_of_retry_after_leaves_the_usual_pause(
    scripted: Scripted, pauses: list[float], asked: str
) -> None:
    scripted.replies = [reply(503, retry_after=asked)]
    with service(scripted) as oracle, pytest.raises(Waited):
        oracle.post("ask", {}, ANSWER)
    assert 0.0 <= pauses[0] <= 5.0


def test_retry_after_zero_repeats_at_once(scripted: Scripted) -> None:
    scripted.replies = [reply(503, retry_after="0"), reply(200, GOOD)]
    with service(scripted) as oracle:
        assert oracle.post("ask", {}, ANSWER).value == 3


def test_an_answer_of_any_length_up_to_the_limit_is_read(scripted: Scripted) -> None:
    scripted.replies = [reply(200, GOOD)]
    with service(scripted, max_bytes=len(GOOD)) as oracle:
        assert oracle.post("ask", {}, ANSWER).value == 3


@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_too_large_answer_is_refused_and_not_asked_for_again(
    scripted: Scripted, is_compressed: bool
) -> None:
    body = GOOD + b" " * 100_000
    if is_compressed:
        packed = gzip.compress(body, mtime=0)
        assert len(packed) < 1000  # small on the wire: what counts is what it becomes
        scripted.replies = [reply(200, packed, content_encoding="gzip")]
    else:
        scripted.replies = [reply(200, body)]
    with (
        service(scripted, max_bytes=1000) as oracle,
        pytest.raises(TransportError, match="answered more than 1000 bytes"),
    ):
        oracle.post("ask", {}, ANSWER)
    assert len(scripted.requests) == 1


def test_an_answer_that_drips_is_given_up_at_its_deadline(scripted: Scripted) -> None:
    """Each byte comes well within httpx's own timeout."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "100000")
        handler.end_headers()
        while not scripted.is_stopping.wait(0.02):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    scripted.replies = [drip]
    began = time.monotonic()
    with (
        service(scripted, timeout_s=0.3, attempts=1) as oracle,
        pytest.raises(TransportError, match=r"took longer than 0\.3 s"),
    ):
        oracle.post("ask", {}, ANSWER)
    assert 0.3 <= time.monotonic() - began < 3.0


def test_a_service_that_says_nothing_is_given_up(scripted: Scripted) -> None:

    def say_nothing(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = scripted.is_stopping.wait(20)

    scripted.replies = [say_nothing]
    with (
        service(scripted, timeout_s=0.2, attempts=1) as oracle,
        pytest.raises(TransportError, match=r"failed: .*timed out"),
    ):
        oracle.post("ask", {}, ANSWER)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b'{"value": 3', b'{"value": "x"}', b"[]", b'{"value": 3}\xff', b"\xff\xfe"],
)
def test_an_answer_of_another_form_is_an_error_and_not_asked_for_again(
    scripted: Scripted, body: bytes
) -> None:
    scripted.replies = [reply(200, body)]
    with (
        service(scripted) as oracle,
        pytest.raises(TransportError, match="answered in another form"),
    ):
        oracle.post("ask", {}, ANSWER)
    assert len(scripted.requests) == 1


def test_an_answer_that_ends_too_early_is_never_read_as_a_whole_one(scripted: Scripted) -> None:
    def cut(handler: BaseHTTPRequestHandler) -> None:
        reply(200, GOOD, content_length="1000")(handler)
        handler.close_connection = True

    scripted.replies = [cut]
    with (
        service(scripted, attempts=1) as oracle,
        pytest.raises(TransportError, match=r"failed: .*closed connection"),
    ):
        oracle.post("ask", {}, ANSWER)


@pytest.mark.parametrize(
    ("header", "sent"), [("Authorization", "Bearer sesame"), ("x-api-key", "sesame")]
)
def test_the_key_goes_into_its_header_and_nowhere_else(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, header: str, sent: str
) -> None:
    monkeypatch.setenv("ORACLE_KEY", "sesame\n")  # as it comes from a file
    scripted.replies = [reply(400)]
    with (
        service(scripted, api_key_env="ORACLE_KEY", api_key_header=header) as oracle,
        pytest.raises(TransportError) as caught,
    ):
        oracle.post("ask", {}, ANSWER)
    assert scripted.headers[0][header.lower()] == sent
    assert "sesame" not in str(caught.value.to_problem())


def test_without_a_key_no_header_is_sent(scripted: Scripted) -> None:
    scripted.replies = [reply(200, GOOD)]
    with service(scripted) as oracle:
        oracle.post("ask", {}, ANSWER)
    assert "authorization" not in scripted.headers[0]


@pytest.mark.parametrize("key", [None, "", " ", "open\nsesame", "sésame"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.delenv("ORACLE_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("ORACLE_KEY", key)
    with pytest.raises(InvalidInput, match="the environment variable ORACLE_KEY") as caught:
        service(scripted, api_key_env="ORACLE_KEY")
    assert "same" not in caught.value.detail


def test_a_password_in_the_url_is_not_shown(scripted: Scripted) -> None:
    scripted.replies = [reply(404)]
    url = scripted.url.replace("http://", "http://ada:sesame@")
    with JsonService(url, "the oracle") as oracle, pytest.raises(TransportError) as caught:
        oracle.get("search", {}, ANSWER)
    assert "sesame" not in caught.value.detail


def test_calls_of_several_threads_keep_the_pace_together(scripted: Scripted) -> None:
    scripted.replies = [reply(200, GOOD)]
    with service(scripted, per_second=50) as oracle:
        began = time.monotonic()
        threads = [
            threading.Thread(target=lambda: [oracle.post("ask", {}, ANSWER) for _ in range(5)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - began
    assert len(scripted.requests) == 20
    assert took >= 19 / 50 - 0.01  # the first call of the twenty is free


def test_there_are_never_more_calls_at_a_time_than_connections(scripted: Scripted) -> None:
    together = threading.Barrier(2)

    def both(handler: BaseHTTPRequestHandler) -> None:
        together.wait(10)  # two at a time are served, or this breaks
        reply(200, GOOD)(handler)

    scripted.replies = [both]
    with service(scripted, num_connections=2) as oracle:
        threads = [threading.Thread(target=oracle.post, args=["ask", {}, ANSWER]) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(scripted.requests) == 6
    assert scripted.most_at_once == 2


def test_a_service_that_is_not_there_is_tried_again_and_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody can connect
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with (
            stamina.set_testing(True, attempts=3, cap=True),
            JsonService(url, "the oracle") as oracle,
            pytest.raises(TransportError, match=f"the oracle: GET {url}/search failed"),
        ):
            oracle.get("search", {}, ANSWER)


@pytest.mark.parametrize("url", ["oracle", "ftp://oracle/", "http://", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="the oracle has a URL"):
        JsonService(url, "the oracle")


@pytest.mark.parametrize("per_second", [0.0, -1.0, float("nan")])
def test_a_pace_that_is_none_is_refused(per_second: float) -> None:
    with pytest.raises(InvalidInput, match="per_second"):
        JsonService("http://127.0.0.1:1", "the oracle", per_second=per_second)
