from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from steppo_env.errors import StoreError
from steppo_server import readiness
from steppo_server.journal.journal import Journal

if TYPE_CHECKING:
    from tests.server.conftest import Control, Serving

pytestmark = pytest.mark.anyio

SESSION = {"env_id": "test/Stub-v0", "task_id": "train-0", "session_id": "s"}


async def not_ready(client: httpx.AsyncClient) -> str:
    """Return why a server wants no new sessions."""
    response = await client.get("/readyz")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:steppo:problem:not-ready"
    assert (await client.get("/healthz")).status_code == 200  # no reason to restart it
    return str(response.json()["reason"])


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_tells_version_and_how_full_the_server_is(serving: Serving, path: str) -> None:
    async with serving(max_sessions=3) as client:
        await client.post("/v1/sessions", json=SESSION)
        response = await client.get(path)
    assert response.json() == {
        "status": "ok",
        "version": version("steppo-env"),
        "num_sessions": 1,
        "max_sessions": 3,
    }


async def test_a_session_that_is_closed_is_counted_no_more(client: httpx.AsyncClient) -> None:
    await client.post("/v1/sessions", json=SESSION)
    await client.delete("/v1/sessions/s")
    assert (await client.get("/healthz")).json()["num_sessions"] == 0


async def test_a_full_server_is_ready_again_when_there_is_room(serving: Serving) -> None:
    async with serving(max_sessions=1) as client:
        await client.post("/v1/sessions", json=SESSION)
        assert await not_ready(client) == "full"
        await client.delete("/v1/sessions/s")
        assert (await client.get("/readyz")).status_code == 200


async def test_a_draining_server_goes_on_with_what_it_has_and_begins_nothing(
    serving: Serving, control: Control
) -> None:
    async with serving() as client:
        await client.post("/v1/sessions", json=SESSION)
        client._transport.app.state.manager.drain()  # type: ignore[attr-defined]
        assert await not_ready(client) == "draining"
        step = {"step_index": 0, "action": "go"}
        assert (await client.post("/v1/sessions/s/steps", json=step)).status_code == 200
        assert (await client.post("/v1/sessions", json=SESSION)).status_code == 201  # a retry
        for path, body in (
            ("/v1/sessions", {**SESSION, "session_id": "t"}),
            ("/v1/sessions/s/forks", {"count": 1}),
            ("/v1/groups", {"env_id": "test/Stub-v0", "task_id": "train-0", "size": 1}),
        ):
            refused = await client.post(path, json=body)
            assert refused.status_code == 503, path
            assert int(refused.headers["retry-after"]) > 0


async def test_a_server_that_cannot_write_its_journal_is_not_ready(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[str] = []

    async def full(self: Journal) -> None:
        beats.append("asked")
        raise StoreError("no space left on device")

    async def hanging(self: Journal) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(readiness, "JOURNAL_DEADLINE_S", 0.01)
    async with serving() as client:
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "beat", full)
            assert await not_ready(client) == "journal"
            assert beats == ["asked"]
            patch.setattr(Journal, "beat", hanging)
            assert await not_ready(client) == "journal"
        monkeypatch.setattr(readiness, "JOURNAL_DEADLINE_S", 10)
        assert (await client.get("/readyz")).status_code == 200


async def test_whoever_asks_again_and_again_writes_the_journal_once(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat, beats = Journal.beat, 0

    async def counted(self: Journal) -> None:
        nonlocal beats
        beats += 1
        await beat(self)

    monkeypatch.setattr(Journal, "beat", counted)
    monkeypatch.setattr(readiness, "RECENT_S", 60)
    async with serving() as client:
        for _ in range(5):
            assert (await client.get("/readyz")).status_code == 200
        assert beats == 1
