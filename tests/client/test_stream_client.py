import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from steppo_client import HttpEnvClient, SessionStart, StreamEnvClient, client_of
from steppo_env.errors import (
    CapacityExceeded,
    Forbidden,
    InvalidInput,
    PayloadTooLarge,
    StepIndexMismatch,
    SteppoError,
    TransportError,
    Unauthorized,
)
from steppo_env.registry import make
from steppo_server.app import create_app
from steppo_server.auth import NO_KEYS, Caller, Keyring, KeyScope, digest_of
from steppo_server.settings import ServerSettings

Served = Callable[[ASGIApp], AbstractContextManager[str]]

KEYDOOR = "steppo/KeyDoor-v0"
GO = "<act> go north </act>"


class Cut:
    """Closes a stream in place of some of its replies, counted over all streams."""

    def __init__(self, app: ASGIApp, lost: set[int]) -> None:
        self.app = app
        self.lost = lost
        self.num_replies = 0
        self.num_streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def cutting(message: Message) -> None:
            if message["type"] == "websocket.accept":
                self.num_streams += 1
            if message["type"] == "websocket.send":
                self.num_replies += 1
                if self.num_replies - 1 in self.lost:
                    message = {"type": "websocket.close", "code": 1011}
            await send(message)

        await self.app(scope, receive, cutting)


def steppo_app(keyring: Keyring = NO_KEYS, **settings: Any) -> ASGIApp:
    return create_app(settings=ServerSettings(journal="sqlite://", **settings), keyring=keyring)


@asynccontextmanager
async def streaming(served: Served, app: ASGIApp, **options: Any) -> AsyncIterator[StreamEnvClient]:
    with served(app) as url:
        async with StreamEnvClient(url.replace("http", "ws"), **options) as client:
            yield client


def start(session_id: str = "s1", **changes: Any) -> SessionStart:
    return SessionStart(KEYDOOR, session_id, 3, task_id="dev/0", **changes)


def expected_keys(num_steps: int) -> list[str]:
    env = make(KEYDOOR)
    env.start("dev/0", 3)
    keys = [env.trace_key]
    for _ in range(num_steps):
        env.advance(GO)
        keys.append(env.trace_key)
    return keys


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("lost", [set(), {0}, {1, 2, 3}, {0, 2, 4, 5, 7, 9}], ids=str)
async def test_a_request_whose_reply_is_lost_with_its_socket_is_applied_once(
    lost: set[int], served: Served
) -> None:
    cut = Cut(steppo_app(), lost)
    async with streaming(served, cut) as client:
        keys = [(await client.create(start())).trace_key]
        for step_index in range(5):
            keys.append((await client.step("s1", step_index, GO)).trace_key)

    assert keys == expected_keys(5)
    assert cut.num_streams == 1 + len(lost)


@pytest.mark.usefixtures("no_backoff")
async def test_four_attempts_are_made_and_no_more(served: Served) -> None:
    cut = Cut(steppo_app(), {0, 1, 2, 3})
    async with streaming(served, cut) as client:
        with pytest.raises(TransportError, match="was lost"):
            await client.environments()
        assert cut.num_replies == 4
        assert await client.environments()


async def test_many_agents_share_one_socket_and_each_gets_its_own_replies(served: Served) -> None:
    cut = Cut(steppo_app(), set())
    keys: dict[int, list[str]] = {}

    async def play(client: StreamEnvClient, number: int) -> None:
        name = f"s{number}"
        state = await client.create(start(name))
        taken = [await client.step(name, step_index, GO) for step_index in range(number % 5)]
        keys[number] = [state.trace_key, *(step.trace_key for step in taken)]

    async with streaming(served, cut) as client, anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(play, client, number)

    assert keys == {number: expected_keys(number % 5) for number in range(40)}
    assert cut.num_streams == 1


async def test_errors_are_those_that_the_server_raised(served: Served) -> None:
    async with streaming(served, steppo_app()) as client:
        await client.create(start())
        with pytest.raises(StepIndexMismatch) as caught:
            await client.step("s1", 4, GO)

    assert caught.value.members["expected"] == 0


async def test_a_request_that_is_too_long_is_told_to_its_caller_only(served: Served) -> None:
    app = steppo_app(max_body_bytes=2000)
    refused: list[SteppoError] = []

    async def too_long(client: StreamEnvClient) -> None:
        with pytest.raises(PayloadTooLarge, match="2000 bytes") as caught:
            await client.step("a", 0, GO + "." * 3000)
        refused.append(caught.value)

    async with streaming(served, app) as client:
        await client.create(start("a"))
        await client.create(start("b"))
        async with anyio.create_task_group() as group:
            group.start_soon(too_long, client)
            group.start_soon(client.step, "b", 0, GO)
        assert (await client.step("b", 1, GO)).trace_key == expected_keys(2)[-1]

    assert len(refused) == 1


async def test_the_key_goes_along_and_a_refusal_is_told_as_what_it_is(served: Served) -> None:
    ring = Keyring({digest_of("right"): Caller("ann", frozenset({KeyScope.ACT}))})
    with served(steppo_app(ring)) as url:
        address = url.replace("http", "ws")
        async with StreamEnvClient(address, key="right") as client:
            await client.create(start())
            with pytest.raises(Forbidden):
                await client.expert("s1")
        async with StreamEnvClient(address, key="wrong") as client:
            with pytest.raises(Unauthorized):
                await client.create(start())


@pytest.mark.usefixtures("no_backoff")
async def test_a_full_server_is_an_error_of_its_own(served: Served) -> None:
    async with streaming(served, steppo_app(max_sessions=1)) as client:
        await client.create(start())
        with pytest.raises(CapacityExceeded):
            await client.create(start("s2"))
        await client.delete("s1")
        await client.create(start("s2"))


class Scripted:
    """A stream that answers as a test says.

    Attributes:
        requests: Every frame that came.
        answer: Takes the stream and a request.
    """

    def __init__(self, answer: Callable[[WebSocket, dict[str, Any]], Any]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answer = answer
        self.app = Starlette(routes=[WebSocketRoute("/v1/stream", self.stream)])

    async def stream(self, socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            request = json.loads(text)
            self.requests.append(request)
            await self.answer(socket, request)


def nothing(request: dict[str, Any]) -> dict[str, Any]:
    return {"request_id": request["request_id"], "status": 200, "body": {"environments": []}}


async def test_a_reply_that_comes_too_late_is_no_answer_to_the_next_request(
    served: Served,
) -> None:
    held: list[dict[str, Any]] = []

    async def answer(socket: WebSocket, request: dict[str, Any]) -> None:
        if request["op"] == "expert":
            held.append(request)
            return
        late = {"request_id": held[0]["request_id"], "status": 200, "body": {"no": "such"}}
        await socket.send_json(late)
        await socket.send_json(nothing(request))

    scripted = Scripted(answer)
    async with streaming(served, scripted.app, timeout_s=0.2) as client:
        with pytest.raises(TransportError, match=r"no reply within 0\.2 s"):
            await client.expert("s")
        assert await client.environments() == ()
        assert client._connection is not None
        assert not client._connection._waiting
    assert len({request["request_id"] for request in scripted.requests}) == len(scripted.requests)


@pytest.mark.parametrize("sent", ["hello", "[]", "{}", '{"status": 200}'])
async def test_what_is_no_reply_is_said_at_once(sent: str, served: Served) -> None:
    async def answer(socket: WebSocket, request: dict[str, Any]) -> None:
        await socket.send_text(sent)

    scripted = Scripted(answer)
    async with streaming(served, scripted.app) as client:
        with pytest.raises(TransportError, match="is this a steppo server"):
            await client.environments()
    assert len(scripted.requests) == 1


async def test_a_reply_of_another_form_is_said_at_once(served: Served) -> None:
    async def answer(socket: WebSocket, request: dict[str, Any]) -> None:
        await socket.send_json({**nothing(request), "body": {"envs": []}})

    async with streaming(served, Scripted(answer).app) as client:
        with pytest.raises(TransportError, match="is not a EnvList"):
            await client.environments()


@pytest.fixture(scope="module")
def web_server(served: Served) -> Iterator[str]:
    """A server of something else."""

    async def busy(_: Any) -> Response:
        return Response("busy", 503)

    with served(Starlette(routes=[Route("/busy/v1/stream", busy)])) as url:
        yield url.replace("http", "ws")


async def test_what_is_no_steppo_server_is_said_at_once(web_server: str) -> None:
    async with StreamEnvClient(web_server) as client:
        began = time.monotonic()
        with pytest.raises(TransportError, match=r"answered 40\d"):
            await client.environments()
    assert time.monotonic() - began < 1.0


async def test_no_server_is_a_transport_error_that_names_the_url_soon() -> None:
    with socket.socket() as unused:  # bound and never listening: nobody answers there
        unused.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{unused.getsockname()[1]}"
        async with StreamEnvClient(f"{url}/") as client:
            with pytest.raises(TransportError, match=f"connecting to {url}/v1/stream failed"):
                await client.environments()


async def test_a_cancelled_caller_closes_its_sessions_all_the_same(served: Served) -> None:
    with served(steppo_app()) as url:
        with anyio.CancelScope() as scope:
            async with StreamEnvClient(url.replace("http", "ws")) as client:
                await client.create(start("a"))
                await client.create(start("b"))
                scope.cancel()
                await anyio.sleep_forever()
        async with HttpEnvClient(url) as other:
            assert (await other.health()).num_sessions == 0


async def test_the_bodys_error_comes_out_as_itself(served: Served) -> None:
    async def fail() -> None:
        async with streaming(served, steppo_app()) as client:
            await client.create(start())
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await fail()


async def test_leases_of_sessions_that_are_thought_about_are_renewed(served: Served) -> None:
    """Without its heartbeats the session would be gone: a reply waits for three of them."""
    asked: list[dict[str, Any]] = []

    async def answer(socket: WebSocket, request: dict[str, Any]) -> None:
        if request["op"] == "leases":
            body = {"results": [{"session_id": "s1", "status": 200}]}
            await socket.send_json({**nothing(request), "body": body})
            if [it["op"] for it in scripted.requests].count("leases") == 3:
                await socket.send_json({**nothing(asked[0]), "body": advice})
        elif request["op"] == "expert":
            asked.append(request)
        else:
            await socket.send_json({**nothing(request), "body": created})

    async with streaming(served, steppo_app()) as client:
        await client.create(start())
        created = await client._exchange('"op":"get","session_id":"s1"}')
    advice = {"action": None, "distance": None}
    scripted = Scripted(answer)
    async with streaming(served, scripted.app) as client:
        await client.create(start(lease_s=0.1))
        with anyio.fail_after(10):
            await client.expert("s1")
    renewals = [it["body"] for it in scripted.requests if it["op"] == "leases"]
    assert renewals[:3] == [{"session_ids": ["s1"], "revive": True}] * 3


async def test_outside_async_with_it_says_how_it_is_used() -> None:
    with pytest.raises(InvalidInput, match="async with"):
        await StreamEnvClient("ws://127.0.0.1:1").environments()


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "http://x", "ws://", "wss://[::1"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="ws://127"):
        StreamEnvClient(url)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://x", HttpEnvClient),
        ("https://x:1/y", HttpEnvClient),
        ("ws://x", StreamEnvClient),
        ("wss://x", StreamEnvClient),
    ],
)
def test_the_url_says_which_client_it_is(url: str, kind: type) -> None:
    assert type(client_of(url)) is kind
