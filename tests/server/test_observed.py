"""Request ids, the access log, and what never gets into a log."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from steppo_server.auth import Caller, Keyring, KeyScope, digest_of
from steppo_server.logs import JsonFormatter, RequestFilter, note_request, note_session
from steppo_server.sessions import SessionManager

if TYPE_CHECKING:
    from tests.server.conftest import Control, Serving

pytestmark = pytest.mark.anyio

SESSION = {"env_id": "test/Light-v0", "task_id": "train-0", "session_id": "s"}


class Lines(logging.Handler):
    """Keeps each line as the server would write it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""
        self.setFormatter(JsonFormatter())
        self.addFilter(RequestFilter())

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + "\n"

    def of(self, name: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self.text.splitlines()]
        return [line for line in lines if line["logger"] == name]


@pytest.fixture
def lines() -> object:
    root, handler = logging.getLogger(), Lines()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.setLevel(before)
    root.removeHandler(handler)


async def test_a_request_id_is_taken_or_made_and_given_back(client: httpx.AsyncClient) -> None:
    given = await client.get("/healthz", headers={"X-Request-Id": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    made = {(await client.get("/healthz")).headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    for bad in ("", "a b", "x" * 129, "a\tb"):
        reply = await client.get("/healthz", headers={"X-Request-Id": bad})
        assert reply.headers["x-request-id"] not in ("", bad)


async def test_errors_have_their_request_id_too_also_those_that_nobody_expected(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: SessionManager, *_: object) -> bytes:
        raise KeyError("a bug")

    monkeypatch.setattr(SessionManager, "get", broken)
    for path, status in (("/v1/sessions/s", 500), ("/v1/nothing", 404), ("/v1/envs/no", 404)):
        reply = await client.get(path, headers={"X-Request-Id": "abc-1"})
        assert (reply.status_code, reply.headers["x-request-id"]) == (status, "abc-1")


async def test_an_access_line_has_the_request_the_session_and_the_time(
    serving: Serving, lines: Lines
) -> None:
    async with serving(access_log=True) as client:
        await client.post("/v1/sessions", json=SESSION, headers={"X-Request-Id": "abc-1"})
        await client.get("/v1/sessions/%0Anone")
    first, second = lines.of("steppo.access")
    assert isinstance(first.pop("duration_s"), float)
    assert {name: first[name] for name in sorted(first) if name not in ("time", "pid")} == {
        "environment": "test/Light-v0",
        "level": "info",
        "logger": "steppo.access",
        "message": first["message"],
        "method": "POST",
        "path": "/v1/sessions",
        "request_id": "abc-1",
        "session_id": "s",
        "status": 201,
    }
    assert second["path"] == "/v1/sessions/%0Anone"
    assert second["status"] == 404


async def test_without_the_setting_requests_are_not_logged(serving: Serving, lines: Lines) -> None:
    async with serving() as client:
        await client.get("/healthz")
    assert lines.of("steppo.access") == []


async def test_a_failure_is_logged_with_its_request_and_session(
    serving: Serving, control: Control, lines: Lines
) -> None:
    async with serving() as client:
        await client.post("/v1/sessions", json=SESSION)
        await client.post(
            "/v1/sessions/s/steps",
            json={"step_index": 0, "action": "raise"},
            headers={"X-Request-Id": "abc-1"},
        )
    (line,) = [line for line in lines.of("steppo.server") if line.get("status") == 500]
    assert (line["request_id"], line["session_id"]) == ("abc-1", "s")
    assert "act broke" in str(line["traceback"])


async def test_neither_actions_nor_keys_nor_queries_are_ever_logged(
    serving: Serving, control: Control, lines: Lines
) -> None:
    key = "steppo_very-secret"
    caller = Caller("alice", frozenset(KeyScope))
    headers = {"Authorization": f"Bearer {key}"}
    async with serving(access_log=True, keyring=Keyring({digest_of(key): caller})) as client:
        client.headers.update(headers)
        await client.post("/v1/sessions", json=SESSION)
        for index, action in enumerate(("go private-words", "raise private-words")):
            body = {"step_index": index, "action": action}
            await client.post("/v1/sessions/s/steps", json=body)
        await client.get("/v1/envs/test/Light-v0", params={"options": '{"private-words": 1}'})
        await client.get("/healthz", headers={"Authorization": "Bearer steppo_other-secret"})
    ours = "".join(
        json.dumps(line) for line in [*lines.of("steppo.access"), *lines.of("steppo.server")]
    )
    assert len(lines.of("steppo.access")) == 5
    assert "private-words" not in ours
    assert "secret" not in ours


def test_a_line_is_json_whatever_it_says() -> None:
    record = logging.LogRecord("a", logging.INFO, "f", 1, 'say "%s"\n\ud800', ("x",), None)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == 'say "x"\n\ud800'
    assert json.loads(line)["time"].endswith("Z")


async def test_sessions_of_requests_side_by_side_are_not_mixed_up() -> None:
    seen: dict[str, tuple[object, ...]] = {}

    async def request(name: str, sessions: list[str]) -> None:
        note_request(name, is_one=name != "socket")
        for session_id in sessions:
            await anyio.lowlevel.checkpoint()
            note_session(session_id, "e")
        record = logging.LogRecord("a", logging.INFO, "f", 1, "m", (), None)
        RequestFilter().filter(record)
        facts = ("request_id", "session_id", "environment")
        seen[name] = tuple(getattr(record, fact, None) for fact in facts)

    async with anyio.create_task_group() as group:
        group.start_soon(request, "one", ["s", "s"])
        group.start_soon(request, "batch", ["s", "t"])
        group.start_soon(request, "socket", ["s"])
    assert seen == {
        "one": ("one", "s", "e"),
        "batch": ("batch", "(several)", "e"),
        "socket": ("socket", None, None),
    }
