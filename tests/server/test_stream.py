from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
import uvicorn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from steppo_env.stream_wire import StreamReply
from steppo_server.app import create_app
from steppo_server.auth import NO_KEYS, Caller, Keyring, KeyScope, digest_of
from steppo_server.operations import OPERATIONS
from steppo_server.settings import ServerSettings

if TYPE_CHECKING:
    from tests.server.conftest import Control

STUB = "test/Stub-v0"
LIGHT = "test/Light-v0"
KEYDOOR = "steppo/KeyDoor-v0"
WAIT_S = 20.0


@dataclass
class Server:
    """A server on loopback, which `stop` stops."""

    url: str
    uvicorn: uvicorn.Server

    def connect(self, **options: Any) -> ClientConnection:
        """Open a stream."""
        stream: ClientConnection = connect(f"{self.url.replace('http', 'ws')}/v1/stream", **options)
        return stream

    def stop(self) -> None:
        self.uvicorn.should_exit = True


@contextmanager
def streaming(
    keyring: Keyring = NO_KEYS, ws_max_size: int = 2**24, **settings: Any
) -> Iterator[Server]:
    app = create_app(settings=ServerSettings(journal="sqlite://", **settings), keyring=keyring)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config = uvicorn.Config(
            app, log_level="critical", timeout_graceful_shutdown=2, ws_max_size=ws_max_size
        )
        server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}", uvicorn.Server(config))
        thread = threading.Thread(target=server.uvicorn.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join()


@pytest.fixture
def server(control: Control) -> Iterator[Server]:
    with streaming() as server:
        yield server
        control.open_all()


def say(stream: ClientConnection, request_id: str, op: str, **members: Any) -> None:
    stream.send(json.dumps({"request_id": request_id, "op": op, **members}))


def hear(stream: ClientConnection) -> StreamReply:
    return StreamReply.model_validate_json(stream.recv(timeout=WAIT_S))


def close_code(stream: ClientConnection) -> int | None:
    """Hear what still comes, and return the code with which the server closes."""
    try:
        while True:
            hear(stream)
    except ConnectionClosed:
        return stream.close_code


def ask(stream: ClientConnection, op: str, **members: Any) -> StreamReply:
    say(stream, "1", op, **members)
    reply = hear(stream)
    assert reply.request_id == "1"
    return reply


def new(session_id: str, **changes: Any) -> dict[str, Any]:
    return {"env_id": STUB, "task_id": "train-0", "session_id": session_id, **changes}


def step(action: str, step_index: int = 0) -> dict[str, Any]:
    return {"step_index": step_index, "action": action}


def without_leases(value: Any) -> Any:
    """Return a reply without what changes from one call to the next."""
    if isinstance(value, list):
        return [without_leases(item) for item in value]
    if isinstance(value, dict):
        left_out = ("lease_expires_at", "instance")
        return {key: without_leases(item) for key, item in value.items() if key not in left_out}
    return value


KEYDOORS = {"env_id": KEYDOOR, "task_id": "dev/0"}
CALLS: list[tuple[str, str | None, Any, str, str]] = [
    ("environments", None, None, "GET", "/v1/envs"),
    ("describe", None, {"env_id": KEYDOOR}, "GET", f"/v1/envs/{KEYDOOR}"),
    ("describe", None, {"env_id": "x/No-v0"}, "GET", "/v1/envs/x/No-v0"),
    (
        "tasks",
        None,
        {"env_id": KEYDOOR, "split": "dev", "limit": 3},
        "GET",
        f"/v1/envs/{KEYDOOR}/tasks?split=dev&limit=3",
    ),
    ("create", None, {**KEYDOORS, "session_id": "a"}, "POST", "/v1/sessions"),
    ("create", None, {**KEYDOORS, "task_id": "no", "session_id": "b"}, "POST", "/v1/sessions"),
    (
        "sessions",
        None,
        {"sessions": [{**KEYDOORS, "session_id": "c"}]},
        "POST",
        "/v1/batch/sessions",
    ),
    ("group", None, {**KEYDOORS, "size": 2, "group_id": "g"}, "POST", "/v1/groups"),
    ("step", "a", step("go"), "POST", "/v1/sessions/a/steps"),
    ("step", "a", step("go", 5), "POST", "/v1/sessions/a/steps"),
    ("step", "a", step("other"), "POST", "/v1/sessions/a/steps"),
    ("step", "nobody", step("go"), "POST", "/v1/sessions/nobody/steps"),
    (
        "steps",
        None,
        {"steps": [{"session_id": "c", **step("go")}, {"session_id": "no", **step("go")}]},
        "POST",
        "/v1/batch/steps",
    ),
    ("get", "a", None, "GET", "/v1/sessions/a"),
    ("expert", "a", None, "GET", "/v1/sessions/a/expert"),
    ("fork", "a", {"fork_id": "f", "count": 2}, "POST", "/v1/sessions/a/forks"),
    ("leases", None, {"session_ids": ["a", "no"]}, "POST", "/v1/leases"),
    ("delete", "nobody", None, "DELETE", "/v1/sessions/nobody"),
]


def test_every_operation_answers_what_its_http_call_answers() -> None:
    """Each is safe to repeat, so that both can be asked for the very same thing."""
    with streaming() as server, server.connect() as stream:
        for op, session_id, body, method, path in CALLS:
            named = {"session_id": session_id, "body": body}
            reply = ask(stream, op, **{key: it for key, it in named.items() if it is not None})
            response = httpx.request(
                method, f"{server.url}{path}", json=body if method == "POST" else None
            )
            found = reply.body if reply.problem is None else reply.problem.model_dump()
            assert (op, reply.status) == (op, response.status_code)
            assert without_leases(found) == without_leases(response.json())
        assert ask(stream, "delete", session_id="a").status == 204
        assert httpx.get(f"{server.url}/v1/sessions/a").status_code == 404
    assert {op for op, *_ in CALLS} == set(OPERATIONS)


def test_a_reply_leaves_when_it_is_ready_whatever_was_asked_before(
    server: Server, control: Control
) -> None:
    with server.connect() as stream:
        ask(stream, "create", body=new("slow"))
        ask(stream, "create", body=new("quick", env_id=LIGHT))
        say(stream, "first", "step", session_id="slow", body=step("wait x"))
        say(stream, "second", "step", session_id="quick", body=step("go"))
        assert hear(stream).request_id == "second"
        control.open("x")
        assert hear(stream).request_id == "first"


def test_no_more_requests_are_worked_on_than_allowed(control: Control) -> None:
    with streaming(stream_requests=1) as server, server.connect() as stream:
        ask(stream, "create", body=new("slow"))
        ask(stream, "create", body=new("quick", env_id=LIGHT))
        say(stream, "first", "step", session_id="slow", body=step("wait x"))
        say(stream, "second", "step", session_id="quick", body=step("go"))
        with pytest.raises(TimeoutError):
            stream.recv(timeout=0.2)
        assert control.acts == ["wait x"]
        control.open("x")
        assert [hear(stream).request_id, hear(stream).request_id] == ["first", "second"]


def test_a_step_outlives_the_socket_that_it_came_by(server: Server, control: Control) -> None:
    with server.connect() as stream:
        ask(stream, "create", body=new("a"))
        say(stream, "1", "step", session_id="a", body=step("wait x"))
        assert control._entered["x"].wait(WAIT_S)
    control.open("x")
    with server.connect() as stream:
        reply = ask(stream, "step", session_id="a", body=step("wait x"))
    assert reply.status == 200
    assert control.acts == ["wait x"]


def test_requests_outlive_a_stream_that_the_server_closes(control: Control) -> None:
    """A frame that is too long ends the stream, while replies to others are still to be sent."""
    with streaming(ws_max_size=2000) as server:
        with server.connect() as stream:
            for name in ("a", "b"):
                ask(stream, "create", body=new(name, env_id=STUB if name == "a" else LIGHT))
            say(stream, "1", "step", session_id="a", body=step("wait x"))
            assert control._entered["x"].wait(WAIT_S)
            say(stream, "2", "step", session_id="b", body=step("go"))
            stream.send("x" * 3000)
            assert close_code(stream) == 1009
        control.open("x")
        with server.connect() as stream:
            for name, action in (("a", "wait x"), ("b", "go")):
                assert ask(stream, "step", session_id=name, body=step(action)).status == 200
    assert sorted(control.acts) == ["go", "wait x"]


@pytest.mark.anyio
async def test_a_reply_that_cannot_be_sent_any_more_does_no_harm(control: Control) -> None:
    """What uvicorn raises between closing a stream itself and telling so."""
    app = create_app(settings=ServerSettings(journal="sqlite://"))
    told = anyio.Event()
    request = '{"request_id": "1", "op": "environments"}'
    heard = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": request}])

    async def receive() -> Any:
        for message in heard:
            return message
        await told.wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            told.set()
            raise RuntimeError("after sending 'websocket.close'")

    path = "/v1/stream"
    scope = {"type": "websocket", "path": path, "headers": [(b"host", b"127.0.0.1")], "app": app}
    async with app.router.lifespan_context(app):
        await app({**scope, "query_string": b"", "scheme": "ws", "subprotocols": []}, receive, send)
    assert told.is_set()


@pytest.mark.parametrize(
    ("frame", "request_id", "status"),
    [
        ("", None, 400),
        ("{", None, 400),
        ("nonsense", None, 400),
        ("[]", None, 422),
        ("null", None, 422),
        ("[" * 5000, None, 400),
        ("{}", None, 422),
        ('{"request_id": "", "op": "environments"}', None, 422),
        (f'{{"request_id": "{"x" * 129}", "op": "environments"}}', None, 422),
        ('{"request_id": 7, "op": "environments"}', None, 422),
        ('{"request_id": "7", "op": "stop"}', "7", 422),
        ('{"request_id": "7"}', "7", 422),
        ('{"request_id": "7", "op": "step", "session_id": "a"}', "7", 422),
        ('{"request_id": "7", "op": "environments", "more": 1}', "7", 422),
        ('{"request_id": "7", "op": "get", "session_id": "\\ud800"}', None, 400),
    ],
)
def test_a_frame_of_another_form_is_answered_and_the_stream_goes_on(
    shared: Server, frame: str, request_id: str | None, status: int
) -> None:
    with shared.connect() as stream:
        stream.send(frame)
        reply = hear(stream)
        assert (reply.request_id, reply.status) == (request_id, status)
        assert reply.problem is not None
        assert ask(stream, "environments").status == 200


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with streaming(max_body_bytes=100_000) as server:
        yield server


@pytest.mark.parametrize(
    ("frame", "code"),
    [(b"{}", 1003), ("x" * 100_001, 1009), ("é" * 50_001, 1009)],
    ids=["bytes", "ascii", "not ascii"],
)
def test_what_is_no_text_or_too_long_closes_the_stream(
    shared: Server, frame: str | bytes, code: int
) -> None:
    with shared.connect() as stream:
        stream.send(frame)
        assert close_code(stream) == code


@pytest.mark.parametrize(
    ("origin", "is_own"),
    [("http://{host}", True), ("https://evil.example", False), ("null", False)],
)
def test_pages_of_other_servers_open_no_stream(shared: Server, origin: str, is_own: bool) -> None:
    origin = origin.format(host=shared.url.removeprefix("http://"))
    if is_own:
        with shared.connect(origin=origin) as stream:
            assert ask(stream, "environments").status == 200
    else:
        with pytest.raises(InvalidStatus) as caught:
            shared.connect(origin=origin)
        assert caught.value.response.status_code == 403


def test_a_bug_is_told_without_its_text_and_spares_the_other_requests(
    shared: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("/srv/secret")

    monkeypatch.setattr("steppo_server.operations.OPERATIONS", {**OPERATIONS, "get": broken})
    with shared.connect() as stream:
        reply = ask(stream, "get", session_id="a")
        assert reply.status == 500
        assert "secret" not in reply.model_dump_json()
        assert ask(stream, "environments").status == 200


def test_a_stream_does_what_its_key_allows_and_sees_no_sessions_of_others() -> None:
    keys = {"ann": {KeyScope.ACT, KeyScope.EXPERT}, "bob": {KeyScope.ACT}, "eve": {KeyScope.ADMIN}}
    ring = Keyring({digest_of(name): Caller(name, frozenset(it)) for name, it in keys.items()})

    def opened(server: Server, key: str) -> ClientConnection:
        return server.connect(additional_headers={"Authorization": f"Bearer {key}"})

    with streaming(ring) as server:
        with opened(server, "ann") as stream:
            ask(stream, "create", body={**KEYDOORS, "session_id": "a"})
            assert ask(stream, "expert", session_id="a").status == 200
        with opened(server, "bob") as stream:
            assert ask(stream, "get", session_id="a").status == 404
            assert ask(stream, "create", body={**KEYDOORS, "session_id": "a"}).status == 201
            assert ask(stream, "expert", session_id="a").status == 403
        for key, status in (("eve", 403), ("nobody", 401)):
            with pytest.raises(InvalidStatus) as caught:
                opened(server, key)
            assert caught.value.response.status_code == status
            assert json.loads(caught.value.response.body or b"")["status"] == status


def test_a_server_that_stops_closes_its_streams_as_a_restart() -> None:
    with streaming() as server, server.connect() as stream:
        ask(stream, "environments")
        server.stop()
        assert close_code(stream) == 1012
