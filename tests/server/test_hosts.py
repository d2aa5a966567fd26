"""A server without keys on loopback is for this machine's programs, not for pages in its browser."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from steppo_server.hosts import LocalOnly, is_loopback

pytestmark = pytest.mark.anyio


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await Response("here")(scope, receive, send)


async def status_of(headers: dict[str, str]) -> int:
    transport = httpx.ASGITransport(LocalOnly(answer, ["Proxy.example"]))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        response = await client.post("/", headers=headers)
    if response.status_code != 200:
        assert response.json()["type"] == "urn:steppo:problem:forbidden"
    return response.status_code


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.9.9.9:8765",
        "localhost:8765",
        "LOCALHOST",
        "[::1]:8765",
        "proxy.example",
        "PROXY.example:443",
    ],
)
async def test_names_of_this_machine_and_allowed_ones_are_answered(host: str) -> None:
    assert await status_of({"host": host}) == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "[",
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1@evil.example",
        "127.0.0.1\\@evil.example",
        "proxy.example.evil",
        "192.168.1.1:8765",
        "0.0.0.0",
    ],
)
async def test_a_name_that_was_made_to_resolve_here_is_refused(host: str) -> None:
    assert await status_of({"host": host}) == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8765", 200),
        ("http://localhost:3000", 200),
        ("https://proxy.example", 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
async def test_pages_of_other_sites_cannot_send_forms_here(origin: str, status: int) -> None:
    assert await status_of({"host": "127.0.0.1", "origin": origin}) == status


def test_pages_of_other_sites_cannot_open_sockets_here() -> None:
    async def accept(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("here")
        await socket.close()

    app = LocalOnly(Starlette(routes=[WebSocketRoute("/", accept), Route("/x", answer)]))
    client, url = TestClient(app), "ws://127.0.0.1/"
    with client.websocket_connect(url) as socket:
        assert socket.receive_text() == "here"
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        client.websocket_connect(url, headers={"origin": "https://evil.example"}),
    ):
        pass
    assert refused.value.code == 1008


async def test_a_request_without_host_is_refused() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await LocalOnly(answer)(scope, receive, send)
    assert sent[0]["status"] == 403


def test_only_addresses_of_this_machine_are_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.1.2.3", "::1")))
    assert not any(map(is_loopback, ("", "0.0.0.0", "::", "10.0.0.1", "x", "::ffff:10.0.0.1")))
