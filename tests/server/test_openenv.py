"""The OpenEnv protocol: frames as openenv-core 0.3.0 sends them, and its own client where it is installed."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from steppo_env.catalogue import Catalogue, EnvSpec
from steppo_env.errors import UnknownEnvironment
from steppo_server.app import create_app
from steppo_server.auth import NO_KEYS, Caller, Keyring, KeyScope
from steppo_server.openenv import episodes
from steppo_server.openenv.documents import EpisodeStateModel, ObservationReply
from steppo_server.openenv.episodes import offered_name
from steppo_server.sessions import SessionManager
from steppo_server.settings import ServerSettings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Message

    from tests.conftest import Serve
    from tests.server.conftest import Control

pytestmark = pytest.mark.anyio

STUB, LIGHT, KEYDOOR = "test/Stub-v0", "test/Light-v0", "steppo/KeyDoor-v0"
# What `EnvClient` of openenv/core/env_client.py sends, byte for byte (`json.dumps` of its messages).
RESET = '{"type": "reset", "data": {"seed": 5, "episode_id": "episode-001", "task_id": "train-1"}}'
RESET_BARE = '{"type": "reset", "data": {}}'
STEP = '{"type": "step", "data": {"text": "go"}}'
STATE = '{"type": "state"}'
CLOSE = '{"type": "close"}'
SENT_MEMBERS = {"observation", "reward", "done"}  # all that ResetResponse and StepResponse have


def wait(name: str) -> str:
    return json.dumps({"type": "step", "data": {"text": f"wait {name}"}})


class Socket:
    """The client's side of a WebSocket to an application in this process."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[Any] = asyncio.Queue()
        self.heard: asyncio.Queue[Any] = asyncio.Queue()

    async def put(self, message: Message) -> None:
        """Take a message of the server; the client reads it before the server goes on."""
        await self.heard.put(message)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()

    async def say(self, text: str) -> None:
        await self.said.put({"type": "websocket.receive", "text": text})

    async def hear(self) -> Message:
        with anyio.fail_after(20):
            message: Message = await self.heard.get()
        return message

    async def ask(self, text: str) -> tuple[str, dict[str, Any]]:
        """Send a request; return the type and the data of its reply."""
        await self.say(text)
        reply = json.loads((await self.hear())["text"])
        assert set(reply) == {"type", "data"}
        return reply["type"], reply["data"]

    async def observe(self, text: str) -> dict[str, Any]:
        """Send a request; return the data of the observation that it leads to."""
        kind, data = await self.ask(text)
        assert kind == "observation", data
        assert set(data) == SENT_MEMBERS
        ObservationReply.model_validate(data)
        return data

    async def fail(self, text: str) -> dict[str, Any]:
        """Send a request; return the data of the error that it leads to."""
        kind, data = await self.ask(text)
        assert kind == "error", data
        return data


Connect = Callable[..., AbstractAsyncContextManager[Socket]]


class Server:
    """An application in this process, over both protocols."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://server")

    @property
    def manager(self) -> SessionManager:
        manager: SessionManager = self.app.state.manager
        return manager

    @asynccontextmanager
    async def socket(
        self, env_name: str = LIGHT, *, authorization: str | None = None
    ) -> AsyncIterator[Socket]:
        """Connect; when the block ends, so does the connection, and the server has seen it."""
        socket = Socket()
        headers = [(b"authorization", authorization.encode())] if authorization else []
        scope: dict[str, Any] = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "scheme": "ws",
            "path": f"/openenv/{env_name}/ws",
            "query_string": b"",
            "headers": headers,
            "subprotocols": [],
            "state": {},
        }
        async with anyio.create_task_group() as group:
            group.start_soon(self.app, scope, socket.said.get, socket.put)
            await socket.said.put({"type": "websocket.connect"})
            yield socket
            await socket.said.put({"type": "websocket.disconnect", "code": 1006})

    @asynccontextmanager
    async def connected(
        self, env_name: str = LIGHT, *, authorization: str | None = None
    ) -> AsyncIterator[Socket]:
        """Connect, where the server lets us."""
        async with self.socket(env_name, authorization=authorization) as socket:
            assert (await socket.hear())["type"] == "websocket.accept"
            yield socket

    async def post(self, path: str, **body: object) -> httpx.Response:
        return await self.http.post(f"/openenv/{path}", json=body)


@asynccontextmanager
async def running(
    catalogue: Catalogue | None = None, keyring: Keyring = NO_KEYS, **settings: object
) -> AsyncIterator[Server]:
    app = create_app(
        catalogue,
        ServerSettings(**{"journal": "sqlite://", **settings}),  # type: ignore[arg-type]
        keyring,
    )
    async with app.router.lifespan_context(app):
        server = Server(app)
        async with server.http:
            yield server


@pytest.fixture
async def server(control: Control) -> AsyncIterator[Server]:
    async with running() as server:
        yield server


# One connection.


async def test_a_recorded_conversation_is_answered_in_the_protocols_form(server: Server) -> None:
    async with server.connected() as socket:
        kind, state = await socket.ask(STATE)
        assert (kind, state["episode_id"], state["step_count"]) == ("state", None, 0)
        begun = await socket.observe(RESET)
        assert (begun["reward"], begun["done"]) == (None, False)
        assert begun["observation"]["text"] == "begun"
        assert begun["observation"]["messages"] == [{"role": "user", "content": "begun"}]
        assert begun["observation"]["metadata"]["task_id"] == "train-1"
        taken = await socket.observe(STEP)
        assert (taken["reward"], taken["done"]) == (1.0, False)
        metadata = taken["observation"]["metadata"]
        assert metadata["reward_terms"] == {"goal": 1.0}
        assert metadata["terminated"] is metadata["truncated"] is False
        assert metadata["trainable"] is True
        kind, state = await socket.ask(STATE)
        EpisodeStateModel.model_validate(state)
        assert (kind, state["episode_id"], state["step_count"]) == ("state", "episode-001", 1)
        assert (state["seed"], state["split"], state["env_id"]) == (5, "train", LIGHT)
        assert state["trace_key"] == metadata["trace_key"]
        ended = await socket.observe('{"type": "step", "data": {"text": "end", "metadata": {}}}')
        assert ended["done"] is True
        assert ended["observation"]["metadata"]["terminated"] is True
        await socket.say(CLOSE)
        assert await socket.hear() == {"type": "websocket.close", "code": 1000, "reason": ""}


async def test_a_truncated_episode_is_done_and_not_terminated(server: Server) -> None:
    reset = {"type": "reset", "data": {"seed": 0, "options": {"step_limit": 1}}}
    async with server.connected(KEYDOOR) as socket:
        await socket.observe(json.dumps(reset))
        result = await socket.observe(STEP)
        assert result["done"] is True
        metadata = result["observation"]["metadata"]
        assert (metadata["terminated"], metadata["truncated"]) == (False, True)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "INVALID_JSON"),
        ('{"type": "step", "data": {"text": "\\ud800"}}', "INVALID_JSON"),
        ('{"type": "step", "data": {"text": ' + "[" * 500 + "]" * 500 + "}}", "INVALID_JSON"),
        ("[]", "VALIDATION_ERROR"),
        ("{}", "UNKNOWN_TYPE"),
        ('{"type": "render"}', "UNKNOWN_TYPE"),
        ('{"type": "step"}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"text": 1}}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"text": "go", "speed": 1}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"seed": -1}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"sed": 1}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"task_id": "train-0", "index": 1}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"options": {"speed": 1}}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"task_id": "nothing"}}', "EXECUTION_ERROR"),
        ('{"type": "reset", "data": {"split": "nothing", "index": 0}}', "EXECUTION_ERROR"),
        ('{"type": "reset", "data": {"task_id": "broken"}}', "EXECUTION_ERROR"),
        (STEP, "EXECUTION_ERROR"),
    ],
)
async def test_a_bad_request_gets_its_code_and_problem_and_the_connection_goes_on(
    server: Server, frame: str, code: str
) -> None:
    async with server.connected() as socket:
        data = await socket.fail(frame)
        assert data["code"] == code
        assert data["message"] == data["problem"]["detail"] != ""
        await socket.observe(RESET)
    assert server.manager.num_sessions == 0


async def test_a_reset_ends_the_episode_before_also_where_there_is_room_for_one(
    control: Control,
) -> None:
    async with running(max_sessions=1) as server, server.connected() as socket:
        for num_closed in range(3):
            begun = await socket.observe(RESET)
            assert begun["observation"]["metadata"]["step_count"] == 0
            assert (server.manager.num_sessions, control.num_closed) == (1, num_closed)
            await socket.observe(STEP)
        async with server.connected() as other:
            data = await other.fail(RESET)
            assert data["code"] == "CAPACITY_REACHED"
            assert data["problem"]["status"] == 503
    assert control.acts == ["go"] * 3


async def test_a_reset_with_options_that_do_not_fit_leaves_the_episode_as_it_is(
    server: Server,
) -> None:
    async with server.connected(KEYDOOR) as socket:
        await socket.observe(RESET_BARE)
        await socket.observe(STEP)
        data = await socket.fail('{"type": "reset", "data": {"options": {"speed": 1}}}')
        assert data["problem"]["type"] == "urn:steppo:problem:invalid-options"
        result = await socket.observe(STEP)
        assert result["observation"]["metadata"]["step_count"] == 2


async def test_the_episode_ends_with_its_connection_also_in_the_middle_of_a_step(
    server: Server, control: Control
) -> None:
    async with server.connected(STUB) as gone:
        await gone.observe(RESET)
        await gone.say(wait("x"))
        await control.entered("x")
        await gone.said.put({"type": "websocket.disconnect", "code": 1006})
        control.open("x")
    async with server.connected() as closing:
        session_id = (await closing.observe(RESET))["observation"]["metadata"]["session_id"]
        assert (await server.http.get(f"/v1/sessions/{session_id}")).status_code == 200
        await closing.say(CLOSE)
        await closing.hear()
    assert server.manager.num_sessions == 0
    assert (await server.http.get(f"/v1/sessions/{session_id}")).status_code == 404


async def test_connections_have_episodes_of_their_own_that_run_side_by_side(
    server: Server, control: Control
) -> None:
    texts: dict[int, list[str]] = {}

    async def play(number: int) -> None:
        async with server.connected() as socket:
            await socket.observe(RESET)  # the very same episode_id: a label, no address
            texts[number] = []
            for step in range(3):
                frame = {"type": "step", "data": {"text": f"{number}.{step}"}}
                texts[number].append(
                    (await socket.observe(json.dumps(frame)))["observation"]["text"]
                )
            assert (await socket.ask(STATE))[1]["step_count"] == 3

    async with server.connected(STUB) as slow, anyio.create_task_group() as group:
        await slow.observe(RESET)
        await slow.say(wait("x"))
        await control.entered("x")
        async with anyio.create_task_group() as others:
            for number in range(20):
                others.start_soon(play, number)
        group.start_soon(slow.hear)
        control.open("x")
    assert texts == {number: [f"{number}.{step}" for step in range(3)] for number in range(20)}


async def test_a_request_before_the_last_reply_ends_the_connection_and_no_reply_is_shifted(
    server: Server, control: Control
) -> None:
    async with server.connected(STUB) as socket:
        await socket.observe(RESET)
        await socket.say(wait("x"))
        await control.entered("x")
        await socket.say(STEP)  # what the client does after its own timeout
        message = await socket.hear()
        assert (message["type"], message["code"]) == ("websocket.close", 1008)
        assert "one request at a time" in message["reason"]
        control.open("x")
    assert socket.heard.empty()
    assert control.acts == ["wait x"]
    assert server.manager.num_sessions == 0


@pytest.mark.parametrize(
    ("message", "code"),
    [({"bytes": b"{}"}, 1003), ({"text": '{"type": "state"' + " " * 1000 + "}"}, 1009)],
)
async def test_bytes_and_messages_too_long_end_the_connection(
    control: Control, message: dict[str, Any], code: int
) -> None:
    async with running(max_body_bytes=1000) as server, server.connected() as socket:
        await socket.said.put({"type": "websocket.receive", **message})
        assert (await socket.hear())["code"] == code


async def test_a_failed_step_is_no_reward_and_the_episode_goes_no_further(
    server: Server, control: Control
) -> None:
    async with server.connected(STUB) as socket:
        await socket.observe(RESET)
        data = await socket.fail('{"type": "step", "data": {"text": "raise"}}')
        assert data["code"] == "EXECUTION_ERROR"
        assert data["problem"]["trainable"] is False
        assert (await socket.ask(STATE))[1]["trainable"] is False
        data = await socket.fail(STEP)
        assert data["problem"]["type"] == "urn:steppo:problem:episode-ended"
        assert data["problem"]["trainable"] is False
        assert control.acts == ["raise"]
        await socket.observe(RESET)
        assert (await socket.observe(STEP))["reward"] == 1.0


async def test_a_connections_lease_is_renewed_while_the_policy_thinks(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew, renewed = SessionManager.renew, anyio.Event()

    async def seen(self: SessionManager, *args: Any, **kwargs: Any) -> float:
        lease = await renew(self, *args, **kwargs)
        renewed.set()
        return lease

    monkeypatch.setattr(SessionManager, "renew", seen)
    async with running(default_lease_s=0.05) as server, server.connected() as socket:
        await socket.observe(RESET)
        with anyio.fail_after(10):
            await renewed.wait()
        await socket.observe(STEP)


async def test_an_error_of_the_servers_own_tells_nothing_and_the_connection_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: SessionManager, *_: object) -> bytes:
        raise KeyError("a secret")

    async with server.connected() as socket:
        with monkeypatch.context() as patch:
            patch.setattr(SessionManager, "create", broken)
            data = await socket.fail(RESET)
        assert "secret" not in json.dumps(data)
        await socket.observe(RESET)


async def test_mcp_calls_are_refused_in_json_rpc(server: Server) -> None:
    call = {"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {}}
    async with server.connected() as socket:
        kind, data = await socket.ask(json.dumps({"type": "mcp", "data": call}))
    assert (kind, data["id"], data["error"]["code"]) == ("mcp", 7, -32601)
    for content in (b"{}", b"{", b"[1]"):
        response = await server.http.post(f"/openenv/{LIGHT}/mcp", content=content)
        assert response.status_code == 200
        assert (response.json()["jsonrpc"], response.json()["id"]) == ("2.0", None)


# Which environment and which task.


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (KEYDOOR, KEYDOOR),
        ("KeyDoor-v0", KEYDOOR),
        ("small", "small"),
        ("mine/Twice-v0", "mine/Twice-v0"),
    ],
)
def test_an_environment_is_named_wholly_or_by_what_follows_the_slash(name: str, meant: str) -> None:
    specs = {
        variant: EnvSpec(variant, KEYDOOR)
        for variant in ("small", "mine/Twice-v0", "yours/Twice-v0")
    }
    catalogue = Catalogue(specs)
    assert offered_name(catalogue, name) == meant
    with pytest.raises(UnknownEnvironment, match=r"mine/Twice-v0, yours/Twice-v0"):
        offered_name(catalogue, "Twice-v0")
    with pytest.raises(UnknownEnvironment, match="the environments are"):
        offered_name(catalogue, "Nothing-v0")


@pytest.mark.parametrize(
    "name", ["steppo/KeyDoor-v0", "steppo%2FKeyDoor-v0", "KeyDoor-v0", "small"]
)
async def test_every_name_is_reached_over_both_protocols(name: str) -> None:
    catalogue = Catalogue({"small": EnvSpec("small", KEYDOOR, {"size": 3})})
    meant = "small" if name == "small" else KEYDOOR
    async with running(catalogue) as server:
        described = await server.http.get(f"/openenv/{name}/metadata")
        assert described.json()["name"] == meant
        async with server.connected(name.replace("%2F", "/")) as socket:  # servers decode paths
            data = await socket.observe(RESET_BARE)
            assert data["observation"]["metadata"]["env_id"] == meant


async def test_an_unknown_environment_is_told_to_the_first_reset(server: Server) -> None:
    async with server.connected("Nothing-v0") as socket:
        assert (await socket.fail(RESET))["code"] == "FACTORY_ERROR"
    assert (await server.http.get("/openenv/Nothing-v0/health")).status_code == 404


async def test_a_reset_without_a_task_takes_the_one_that_the_seed_points_at(server: Server) -> None:
    async def begun(socket: Socket, **data: object) -> dict[str, Any]:
        result = await socket.observe(json.dumps({"type": "reset", "data": data}))
        metadata: dict[str, Any] = result["observation"]["metadata"]
        return metadata

    async with server.connected(KEYDOOR) as socket:
        assert (await begun(socket, seed=3))["task_id"] == "train/3"
        assert (await begun(socket, seed=100_003))["task_id"] == "train/3"
        assert (await begun(socket, seed=515, split="dev"))["task_id"] == "dev/3"
        assert (await begun(socket, seed=515, split="dev", index=0))["task_id"] == "dev/0"
        assert (await begun(socket, seed=515, task_id="test/9"))["task_id"] == "test/9"
        drawn = await begun(socket)
        again = await begun(socket, seed=drawn["seed"])
        assert again["trace_key"] == drawn["trace_key"]
        assert (await begun(socket))["seed"] != drawn["seed"]
        unknown = await socket.fail('{"type": "reset", "data": {"split": "nothing"}}')
        assert unknown["problem"]["type"] == "urn:steppo:problem:unknown-task"


async def test_an_environment_is_described_once_for_the_same_options_and_few_are_remembered(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episodes, "MAX_KEPT", 2)
    describe, described = SessionManager.describe, []

    async def counted(self: SessionManager, name: str, options: Any) -> Any:
        described.append((name, dict(options)))
        return await describe(self, name, options)

    monkeypatch.setattr(SessionManager, "describe", counted)

    async def reset(step_limit: int) -> None:
        body = {"options": {"step_limit": step_limit}}
        assert (await server.post("KeyDoor-v0/reset", **body)).status_code == 200

    for step_limit in (1, 1, 2, 1, 3, 2, 1):
        await reset(step_limit)
    assert [options["step_limit"] for _, options in described] == [1, 2, 3, 1]


# HTTP.


async def test_over_http_a_reset_without_an_id_is_shown_and_leaves_nothing(server: Server) -> None:
    bare = await server.http.post("/openenv/KeyDoor-v0/reset")
    assert bare.status_code == 200, bare.text
    seeded = await server.post("KeyDoor-v0/reset", seed=2)
    assert set(seeded.json()) == SENT_MEMBERS
    metadata = seeded.json()["observation"]["metadata"]
    assert (metadata["episode_id"], metadata["task_id"]) == (None, "train/2")
    assert server.manager.num_sessions == 0
    state = await server.http.get("/openenv/KeyDoor-v0/state")
    assert (state.json()["episode_id"], state.json()["step_count"]) == (None, 0)
    refused = await server.post("KeyDoor-v0/step", action={"text": "go"})
    assert refused.status_code == 409
    assert refused.json()["type"] == "urn:steppo:problem:episode-not-started"


async def test_over_http_an_episode_is_found_by_its_id(server: Server, control: Control) -> None:
    body = {"episode_id": "mine", "task_id": "train-0"}
    begun = await server.post(f"{LIGHT}/reset", **body)
    assert (await server.post(f"{LIGHT}/reset", **body)).json() == begun.json()
    step = {"episode_id": "mine", "action": {"text": "go"}, "request_id": "r"}
    taken = await server.post(f"{LIGHT}/step", **step, timeout_s=20)
    assert (taken.status_code, taken.json()["reward"]) == (200, 1.0)
    again = await server.post(f"{LIGHT}/step", **step, step_index=0)
    assert again.json() == taken.json()
    assert control.acts == ["go"]
    await server.post(f"{LIGHT}/step", **step)
    assert control.acts == ["go", "go"]
    state = await server.http.get(f"/openenv/{LIGHT}/state", params={"episode_id": "mine"})
    assert (state.json()["episode_id"], state.json()["step_count"]) == ("mine", 2)
    used = await server.post(f"{LIGHT}/reset", **body)
    assert (used.status_code, used.json()["type"]) == (409, "urn:steppo:problem:session-exists")
    assert (await server.http.get("/v1/sessions/mine")).json()["step_index"] == 2


async def test_over_http_an_episode_belongs_to_its_environment(server: Server) -> None:
    await server.post(f"{LIGHT}/reset", episode_id="mine", task_id="train-0")
    step = {"episode_id": "mine", "action": {"text": "go"}}
    assert (await server.post(f"{STUB}/step", **step)).status_code == 404
    other = await server.http.get(f"/openenv/{STUB}/state", params={"episode_id": "mine"})
    assert other.status_code == 404
    unknown = await server.http.get(f"/openenv/{LIGHT}/state", params={"episode_id": "nobody"})
    assert unknown.status_code == 404


async def test_a_step_outlives_its_callers_timeout_and_a_retry_gets_its_reply(
    server: Server, control: Control
) -> None:
    await server.post(f"{STUB}/reset", episode_id="mine", task_id="train-0")
    step = {"episode_id": "mine", "action": {"text": "wait x"}, "step_index": 0}
    path = f"{STUB}/step"
    answers: list[httpx.Response] = []
    sent: list[Message] = []
    body = json.dumps({**step, "timeout_s": 0.01}).encode()
    answered = anyio.Event()

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            answered.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": f"/openenv/{path}",
        "query_string": b"",
        "headers": [],
        "state": {},
    }
    # Not httpx: its transport gives the reply out only when the application has returned.
    async with anyio.create_task_group() as group:
        group.start_soon(server.app, scope, receive, send)
        await control.entered("x")
        with anyio.fail_after(10):
            await answered.wait()
        control.open("x")
    assert sent[0]["status"] == 504
    answers.append(await server.post(path, **step))
    assert answers[0].status_code == 200
    assert answers[0].json()["observation"]["text"] == "wait x"
    assert control.acts == ["wait x"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("reset", {"episode_id": "a b"}),
        ("reset", {"episode_id": "a" * 129}),
        ("reset", {"speed": 1}),
        ("step", {}),
        ("step", {"action": "go"}),
        ("step", {"action": {"text": "go"}, "episode_id": "mine", "timeout_s": 0}),
        ("step", {"action": {"text": "go"}, "episode_id": "mine", "timeout_s": -1}),
    ],
)
async def test_over_http_bad_input_is_a_problem(
    server: Server, path: str, body: dict[str, Any]
) -> None:
    response = await server.post(f"{LIGHT}/{path}", **body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


async def test_an_environment_describes_itself_as_the_validator_asks(server: Server) -> None:
    base = f"/openenv/{KEYDOOR}"
    assert (await server.http.get(f"{base}/health")).json() == {"status": "healthy"}
    described = (await server.http.get(f"{base}/metadata")).json()
    assert described["description"].startswith("KeyDoor:") or described["description"]
    schemas = (await server.http.get(f"{base}/schema")).json()
    assert set(schemas["action"]["properties"]) == {"text", "metadata"}
    assert "admissible_actions" in schemas["observation"]["properties"]
    assert "step_count" in schemas["state"]["properties"]
    document = (await server.http.get(f"{base}/openapi.json")).json()
    assert {"/reset", "/step", "/state", "/schema", "/metadata", "/health"} <= set(
        document["paths"]
    )
    assert document["info"]["version"]
    native = (await server.http.get("/openapi.json")).json()
    assert not [path for path in native["paths"] if "openenv" in path]


# Keys.


def keyring(**scopes: KeyScope) -> Keyring:
    """Return keys that are the same text as the names of their owners."""
    return Keyring(
        {
            sha256(name.encode()).digest(): Caller(name, frozenset({scope}))
            for name, scope in scopes.items()
        }
    )


@pytest.mark.parametrize(
    "authorization",
    ["Bearer alice", f"Basic {b64encode(b'any:alice').decode()}"],
)
async def test_with_keys_the_client_gives_its_key_as_a_header_or_in_its_url(
    control: Control, authorization: str
) -> None:
    keys = keyring(alice=KeyScope.ACT, bob=KeyScope.ACT)
    async with (
        running(keyring=keys) as server,
        server.connected(authorization=authorization) as socket,
    ):
        metadata = (await socket.observe(RESET))["observation"]["metadata"]
        path = f"/v1/sessions/{metadata['session_id']}"
        for key, status in (("alice", 200), ("bob", 404)):
            headers = {"authorization": f"Bearer {key}"}
            assert (await server.http.get(path, headers=headers)).status_code == status


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer mallory", "Bearer eve", "Basic !", f"Basic {b64encode(b'alice').decode()}"],
)
async def test_without_a_key_that_may_act_there_is_no_connection(
    control: Control, authorization: str | None
) -> None:
    keys = keyring(alice=KeyScope.ACT, eve=KeyScope.ADMIN)
    async with running(keyring=keys) as server:
        async with server.socket(authorization=authorization) as socket:
            message = await socket.hear()
        assert (message["type"], message["code"]) == ("websocket.close", 1008)
        headers = {"authorization": authorization} if authorization else {}
        response = await server.http.post(f"/openenv/{LIGHT}/reset", headers=headers)
        assert response.status_code == (403 if authorization == "Bearer eve" else 401)


# The client itself.


@pytest.fixture(scope="module")
def openenv() -> Any:
    return pytest.importorskip("openenv.core", reason="needs openenv-core")


@pytest.fixture(scope="module")
def url(openenv: Any, serve: Serve) -> str:
    """A server of its own, for those tests alone that can use it."""
    return serve()


async def status_of(url: str) -> int:
    async with httpx.AsyncClient() as http:
        return (await http.get(url)).status_code


async def test_the_unmodified_client_resets_steps_reads_the_state_and_closes(
    openenv: Any, url: str
) -> None:
    address = url.removeprefix("http://")
    for base in (
        f"http://{address}/openenv/steppo%2FKeyDoor-v0",
        f"ws://{address}/openenv/KeyDoor-v0",
    ):
        async with openenv.GenericEnvClient(base_url=base) as env:
            begun = await env.reset(seed=3, episode_id="episode-001", split="dev", index=2)
            assert (begun.reward, begun.done) == (None, False)
            assert begun.observation["metadata"]["task_id"] == "dev/2"
            taken = await env.step({"text": "<act> go south </act>"})
            assert taken.reward == 0.0
            assert taken.observation["metadata"]["reward_terms"] == {"goal": 0.0}
            state = await env.state()
            assert (state["episode_id"], state["step_count"]) == ("episode-001", 1)
            with pytest.raises(RuntimeError, match=r"VALIDATION_ERROR"):
                await env.step({"move": "south"})
            path = f"{url}/v1/sessions/{state['session_id']}"
            assert await status_of(path) == 200
        # The client does not wait until the server has freed the episode.
        async with httpx.AsyncClient() as http:
            with anyio.fail_after(10):
                while (await http.get(path)).status_code != 404:
                    pass


async def test_unmodified_clients_play_side_by_side(openenv: Any, url: str) -> None:
    seen: dict[int, tuple[str, int]] = {}

    async def play(seed: int) -> None:
        async with openenv.GenericEnvClient(base_url=f"{url}/openenv/KeyDoor-v0") as env:
            await env.reset(seed=seed)
            for _ in range(5):
                await env.step({"text": "<act> go north </act>"})
            state = await env.state()
            seen[seed] = state["task_id"], state["step_count"]

    async with anyio.create_task_group() as group:
        for seed in range(16):
            group.start_soon(play, seed)
    assert seen == {seed: (f"train/{seed}", 5) for seed in range(16)}


def test_the_validator_of_openenv_passes(url: str) -> None:
    validation = pytest.importorskip("openenv.cli._validation")
    report = validation.validate_running_environment(f"{url}/openenv/KeyDoor-v0")
    assert report["passed"], report
    assert report["mode"] == "simulation"


def test_replies_are_what_openenvs_own_models_take(url: str) -> None:
    types = pytest.importorskip("openenv.core.env_server.types")
    with httpx.Client(base_url=f"{url}/openenv/KeyDoor-v0") as http:
        begun = http.post("/reset", json={"seed": 1, "episode_id": "models"})
        types.ResetResponse.model_validate(begun.json())
        step = {"action": {"text": "go"}, "episode_id": "models"}
        types.StepResponse.model_validate(http.post("/step", json=step).json())
        types.State.model_validate(http.get("/state", params={"episode_id": "models"}).json())
        types.EnvironmentMetadata.model_validate(http.get("/metadata").json())
        types.SchemaResponse.model_validate(http.get("/schema").json())
        types.HealthResponse.model_validate(http.get("/health").json())
