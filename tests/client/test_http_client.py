import socket
import time

import anyio
import httpx
import pytest
import stamina
from hypothesis import given, settings
from hypothesis import strategies as st

from steppo_client import HttpEnvClient, SessionStart
from steppo_env.env import StepEnv
from steppo_env.errors import (
    CapacityExceeded,
    InvalidInput,
    InvalidOptions,
    SessionExists,
    SteppoError,
    TransportError,
    UnknownEnvironment,
)
from steppo_env.registry import make
from steppo_keydoor import KeyDoor
from steppo_server import ServerSettings, create_app

KEYDOOR = "steppo/KeyDoor-v0"
GO = "<act> go north </act>"


class Lossy(httpx.AsyncBaseTransport):
    """Loses the replies to some requests after the server has answered them."""

    def __init__(self, lost: set[int], settings: ServerSettings | None = None) -> None:
        self._inner = httpx.ASGITransport(create_app(settings=settings or ServerSettings()))
        self.lost = lost
        self.num_requests = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        number = self.num_requests
        self.num_requests += 1
        response = await self._inner.handle_async_request(request)
        if number in self.lost:
            await response.aread()
            raise httpx.ReadError("the reply was lost", request=request)
        return response


class Scripted(httpx.AsyncBaseTransport):
    """Answers with the given responses, the last one for ever."""

    def __init__(self, *responses: httpx.Response) -> None:
        self.responses = list(responses)
        self.times: list[float] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.times.append(time.monotonic())
        response = self.responses[min(len(self.times), len(self.responses)) - 1]
        return httpx.Response(
            response.status_code, headers=response.headers, content=response.read()
        )


def scripted(*responses: httpx.Response) -> tuple[HttpEnvClient, Scripted]:
    transport = Scripted(*responses)
    return HttpEnvClient("http://test", transport=transport), transport


def start(session_id: str = "s1") -> SessionStart:
    return SessionStart(KEYDOOR, session_id, 3, task_id="dev/0")


def expected_keys(num_steps: int) -> list[str]:
    env = make(KEYDOOR)
    env.start("dev/0", 3)
    keys = [env.trace_key]
    for _ in range(num_steps):
        env.advance(GO)
        keys.append(env.trace_key)
    return keys


@given(lost=st.sets(st.integers(0, 25)).map(lambda it: {n for n in it if n % 4 != 3}))
@settings(max_examples=25, deadline=None)
def test_a_request_whose_reply_is_lost_is_applied_once(lost: set[int]) -> None:
    """At most three replies in a row are lost, and four attempts are made."""

    async def play() -> list[str]:
        async with HttpEnvClient("http://test", transport=Lossy(lost)) as client:
            keys = [(await client.create(start())).trace_key]
            for step_index in range(5):
                keys.append((await client.step("s1", step_index, GO)).trace_key)
            return keys

    with stamina.set_testing(True, attempts=100, cap=True):
        assert anyio.run(play) == expected_keys(5)


@pytest.mark.usefixtures("no_backoff")
async def test_four_attempts_are_made_and_no_more() -> None:
    transport = Lossy(set(range(1000)))
    client = HttpEnvClient("http://test", transport=transport)
    with pytest.raises(TransportError, match="the reply was lost"):
        await client.create(start())

    assert transport.num_requests == 4


async def test_no_server_is_a_transport_error_that_names_the_url_soon() -> None:
    with socket.socket() as unused:  # bound and never listening: nobody answers there
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        client = HttpEnvClient(f"{url}/")
        began = time.monotonic()
        with pytest.raises(TransportError, match=f"GET {url}/v1/envs failed: .*running"):
            await client.environments()
        await client.close()

    assert time.monotonic() - began < 10


async def test_no_attempt_begins_after_the_timeout() -> None:
    transport = Lossy(set(range(1000)))
    async with HttpEnvClient("http://test", timeout_s=0.01, transport=transport) as client:
        with pytest.raises(TransportError):
            await client.environments()

    assert transport.num_requests <= 2


async def test_errors_are_those_that_the_server_raised() -> None:
    async with HttpEnvClient("http://test", transport=Lossy(set())) as client:
        with pytest.raises(UnknownEnvironment) as unknown:
            await client.describe("steppo/Nope-v0")
        with pytest.raises(InvalidOptions) as options:
            await client.create(SessionStart(KEYDOOR, "s", 0, "dev/0", options={"size": "x"}))

    assert KEYDOOR in str(unknown.value.members["environments"])
    assert "size" in options.value.detail


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (httpx.Response(404, text="<html>nginx</html>"), "answered 404 without a problem"),
        (httpx.Response(307, headers={"location": "/x"}), "answered 307 without a problem"),
        (httpx.Response(200, text="<html>hello</html>"), "is not a EnvList"),
        (httpx.Response(200, json=[]), "is not a EnvList"),
        (
            httpx.Response(500, text="{", headers={"content-type": "application/problem+json"}),
            "answered 500 without a problem",
        ),
        (
            httpx.Response(500, text="[]", headers={"content-type": "application/problem+json"}),
            "answered 500 without a problem",
        ),
    ],
)
async def test_what_is_no_steppo_server_is_said_at_once(
    response: httpx.Response, message: str
) -> None:
    client, transport = scripted(response)
    async with client:
        with pytest.raises(TransportError, match=message):
            await client.environments()

    assert len(transport.times) == 1


async def test_a_problem_of_a_newer_server_keeps_its_members() -> None:
    problem = {"type": "urn:steppo:problem:new", "title": "New", "status": 400, "detail": "why"}
    headers = {"content-type": "application/problem+json"}
    client, _ = scripted(httpx.Response(400, json={**problem, "more": 1}, headers=headers))
    async with client:
        with pytest.raises(SteppoError, match="why") as caught:
            await client.environments()

    assert type(caught.value) is SteppoError
    assert caught.value.members["more"] == 1


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_busy_proxy_is_asked_again(status: int) -> None:
    client, transport = scripted(
        httpx.Response(status, text="busy"), httpx.Response(200, json={"environments": []})
    )
    async with client:
        assert await client.environments() == ()

    assert len(transport.times) == 2


@pytest.mark.parametrize(
    "busy",
    [
        httpx.Response(503, text="busy", headers={"retry-after": "1"}),
        httpx.Response(
            503,
            json=CapacityExceeded("full", retry_after_s=1).to_problem(),
            headers={"content-type": "application/problem+json"},
        ),
    ],
)
async def test_a_server_that_names_a_time_is_left_alone_for_so_long(busy: httpx.Response) -> None:
    client, transport = scripted(busy, httpx.Response(200, json={"environments": []}))
    async with client:
        await client.environments()

    assert 1.0 <= transport.times[1] - transport.times[0] < 2.0


@pytest.mark.usefixtures("no_backoff")
async def test_a_full_server_is_an_error_of_its_own() -> None:
    transport = Lossy(set(), ServerSettings(max_sessions=1))
    async with HttpEnvClient("http://test", transport=transport) as client:
        await client.create(start())
        with pytest.raises(CapacityExceeded):
            await client.create(start("s2"))
        await client.delete("s1")
        await client.create(start("s2"))


@pytest.mark.usefixtures("no_backoff")
async def test_closing_frees_a_session_whose_creation_was_never_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[str] = []
    monkeypatch.setattr(StepEnv, "close", lambda self: closed.append(self.env_id))
    transport = Lossy({0, 1, 2, 3})
    async with HttpEnvClient("http://test", transport=transport) as client:
        with pytest.raises(TransportError):
            await client.create(start())

    assert closed == [KEYDOOR]


async def test_a_refused_second_start_leaves_the_first_one_to_be_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[str] = []
    async with HttpEnvClient("http://test", transport=Lossy(set())) as client:
        await client.create(start())
        with pytest.raises(SessionExists):
            await client.create(SessionStart(KEYDOOR, "s1", 4, task_id="dev/0"))
        monkeypatch.setattr(KeyDoor, "close", lambda self: closed.append(self.task.task_id))

    assert closed == ["dev/0"]


@pytest.mark.usefixtures("no_backoff")
async def test_closing_does_not_hide_the_error_when_the_server_is_gone() -> None:
    async def fail() -> None:
        transport = Lossy(set())
        async with HttpEnvClient("http://test", transport=transport) as client:
            await client.create(start())
            transport.lost = set(range(1000))
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await fail()


async def test_closing_works_under_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(KeyDoor, "close", lambda self: closed.append(self.task.task_id))
    with anyio.CancelScope() as scope:
        async with HttpEnvClient("http://test", transport=Lossy(set())) as client:
            await client.create(start())
            scope.cancel()
            await anyio.sleep_forever()

    assert closed == ["dev/0"]


@pytest.mark.parametrize("url", ["", "foo", "127.0.0.1:80", "ftp://x", "http://", "http://[::1"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="http://127"):
        HttpEnvClient(url)


async def test_a_real_server_says_how_full_it_is(server_url: str) -> None:
    async with HttpEnvClient(server_url) as client:
        await client.create(start())
        assert (await client.health()).num_sessions == 1
        await client.delete("s1")
        assert (await client.health()).num_sessions == 0
