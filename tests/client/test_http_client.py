import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
import stamina
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from steppo_client import HttpEnvClient, SessionStart
from steppo_env.env import StepEnv
from steppo_env.errors import (
    CapacityExceeded,
    Forbidden,
    InvalidInput,
    InvalidOptions,
    PayloadTooLarge,
    SessionExists,
    StepIndexMismatch,
    SteppoError,
    TransportError,
    Unauthorized,
    UnknownEnvironment,
)
from steppo_env.registry import make
from steppo_keydoor import KeyDoor
from steppo_server.app import create_app
from steppo_server.auth import Caller, Keyring, KeyScope, digest_of, new_key
from steppo_server.settings import ServerSettings

KEYDOOR = "steppo/KeyDoor-v0"
GO = "<act> go north </act>"


class Lossy(httpx.AsyncBaseTransport):
    """Loses the replies to some requests after the server has answered them."""

    def __init__(self, app: ASGIApp, lost: set[int]) -> None:
        self._inner = httpx.ASGITransport(app)
        self.lost = lost
        self.num_requests = 0
        self.paths: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        number = self.num_requests
        self.num_requests += 1
        self.paths.append(request.url.path)
        response = await self._inner.handle_async_request(request)
        if number in self.lost:
            await response.aread()
            raise httpx.ReadError("the reply was lost", request=request)
        return response


@asynccontextmanager
async def lossy(lost: set[int], **settings: Any) -> AsyncIterator[Lossy]:
    """Start a server in process."""
    app = create_app(settings=ServerSettings(**{"journal": "sqlite://", **settings}))
    async with app.router.lifespan_context(app):
        yield Lossy(app, lost)


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


@given(
    lost=st.sets(st.integers(0, 25)).map(lambda it: {n for n in it if n % 4 != 3}),
    coalesce=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_a_request_whose_reply_is_lost_is_applied_once(lost: set[int], coalesce: bool) -> None:
    """At most three replies in a row are lost, and four attempts are made."""

    async def play() -> list[str]:
        async with (
            lossy(lost) as transport,
            HttpEnvClient("http://test", transport=transport, coalesce=coalesce) as client,
        ):
            keys = [(await client.create(start())).trace_key]
            for step_index in range(5):
                keys.append((await client.step("s1", step_index, GO)).trace_key)
            return keys

    with stamina.set_testing(True, attempts=100, cap=True):
        assert anyio.run(play) == expected_keys(5)


@pytest.mark.usefixtures("no_backoff")
async def test_four_attempts_are_made_and_no_more() -> None:
    async with lossy(set(range(1000))) as transport:
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
    async with (
        lossy(set(range(1000))) as transport,
        HttpEnvClient("http://test", timeout_s=0.01, transport=transport) as client,
    ):
        with pytest.raises(TransportError):
            await client.environments()

    assert transport.num_requests <= 2


async def test_errors_are_those_that_the_server_raised() -> None:
    async with (
        lossy(set()) as transport,
        HttpEnvClient("http://test", transport=transport) as client,
    ):
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
    async with (
        lossy(set(), max_sessions=1) as transport,
        HttpEnvClient("http://test", transport=transport) as client,
    ):
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
    async with (
        lossy({0, 1, 2, 3}) as transport,
        HttpEnvClient("http://test", transport=transport) as client,
    ):
        with pytest.raises(TransportError):
            await client.create(start())
        monkeypatch.setattr(StepEnv, "close", lambda self: closed.append(self.env_id))

    assert closed == [KEYDOOR]


async def test_a_refused_second_start_leaves_the_first_one_to_be_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[str] = []
    async with (
        lossy(set()) as transport,
        HttpEnvClient("http://test", transport=transport) as client,
    ):
        await client.create(start())
        with pytest.raises(SessionExists):
            await client.create(SessionStart(KEYDOOR, "s1", 4, task_id="dev/0"))
        monkeypatch.setattr(KeyDoor, "close", lambda self: closed.append(self.task.task_id))

    assert closed == ["dev/0"]


@pytest.mark.usefixtures("no_backoff")
async def test_closing_does_not_hide_the_error_when_the_server_is_gone() -> None:
    async def fail(transport: Lossy) -> None:
        async with HttpEnvClient("http://test", transport=transport) as client:
            await client.create(start())
            transport.lost = set(range(1000))
            raise RuntimeError("mine")

    async with lossy(set()) as transport:
        with pytest.raises(RuntimeError, match="mine"):
            await fail(transport)


async def test_closing_works_under_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(KeyDoor, "close", lambda self: closed.append(self.task.task_id))
    with anyio.CancelScope() as scope:
        async with (
            lossy(set()) as transport,
            HttpEnvClient("http://test", transport=transport) as client,
        ):
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


async def test_steps_of_many_agents_become_few_requests_and_each_gets_its_own_reply() -> None:
    async def play(client: HttpEnvClient, seed: int, keys: dict[int, list[str]]) -> None:
        name = f"s{seed}"
        first = await client.create(SessionStart(KEYDOOR, name, seed, task_id="dev/0"))
        taken = [await client.step(name, step_index, GO) for step_index in range(3)]
        keys[seed] = [first.trace_key, *(step.trace_key for step in taken)]

    async def play_all(*, coalesce: bool) -> tuple[dict[int, list[str]], list[str]]:
        keys: dict[int, list[str]] = {}
        async with lossy(set()) as transport:
            client = HttpEnvClient("http://test", transport=transport, coalesce=coalesce)
            async with client, anyio.create_task_group() as group:
                for seed in range(20):
                    group.start_soon(play, client, seed, keys)
            return keys, [path for path in transport.paths if not path.startswith("/v1/sessions/s")]

    alone, _ = await play_all(coalesce=False)
    joined, paths = await play_all(coalesce=True)
    assert joined == alone
    assert set(paths) == {"/v1/batch/sessions", "/v1/batch/steps"}
    assert paths.count("/v1/batch/sessions") <= 4
    assert paths.count("/v1/batch/steps") <= 12


async def test_one_bad_item_of_a_joined_request_is_its_callers_only() -> None:
    async with (
        lossy(set()) as transport,
        HttpEnvClient("http://test", transport=transport) as client,
    ):
        await client.create(start("a"))
        await client.create(start("b"))
        problems: list[SteppoError] = []

        async def too_far() -> None:
            with pytest.raises(StepIndexMismatch) as caught:
                await client.step("a", 7, GO)
            problems.append(caught.value)

        async with anyio.create_task_group() as group:
            group.start_soon(too_far)
            group.start_soon(client.step, "b", 0, GO)
        assert problems[0].members["expected"] == 0
        assert transport.paths[-1] == "/v1/batch/steps"
        assert (await client.step("b", 1, GO)).trace_key


async def test_what_is_too_long_only_together_goes_one_by_one() -> None:
    async with (
        lossy(set(), max_body_bytes=1500) as transport,
        HttpEnvClient("http://test", transport=transport) as client,
    ):
        names = ("a", "b", "c")
        for name in names:
            await client.create(start(name))
        before = len(transport.paths)
        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(client.step, name, 0, GO + "." * 1000)
        assert len(transport.paths) - before == 4
        with pytest.raises(PayloadTooLarge):
            await client.step("a", 1, GO + "." * 2000)


@pytest.mark.usefixtures("no_backoff")
async def test_an_item_for_which_there_is_no_room_yet_is_sent_again_alone() -> None:
    async with (
        lossy(set(), max_sessions=1) as transport,
        HttpEnvClient("http://test", transport=transport) as client,
    ):
        refused: list[str] = []

        async def create(name: str) -> None:
            try:
                await client.create(start(name))
            except CapacityExceeded:
                refused.append(name)

        async with anyio.create_task_group() as group:
            group.start_soon(create, "a")
            group.start_soon(create, "b")
        assert len(refused) == 1
        assert transport.paths == ["/v1/batch/sessions"] * 4


async def test_a_key_goes_along() -> None:
    key = new_key()
    caller = Caller("ann", frozenset({KeyScope.ACT}))
    app = create_app(
        settings=ServerSettings(journal="sqlite://"), keyring=Keyring({digest_of(key): caller})
    )
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with HttpEnvClient("http://test", transport=transport, key=key) as client:
            await client.create(start())
            with pytest.raises(Forbidden):
                await client.expert("s1")
        async with HttpEnvClient("http://test", transport=httpx.ASGITransport(app)) as client:
            with pytest.raises(Unauthorized):
                await client.create(start())
