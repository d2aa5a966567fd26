from __future__ import annotations

from typing import Any

import httpx
import pytest

from steppo_env.wire import MAX_BATCH, ForkReply, GroupReply

pytestmark = pytest.mark.anyio

KEYDOOR = "steppo/KeyDoor-v0"


async def group(client: httpx.AsyncClient, **members: Any) -> httpx.Response:
    body = {"env_id": KEYDOOR, "task_id": "dev/3", "size": 3, **members}
    return await client.post("/v1/groups", json=body)


async def test_a_group_and_its_forks_go_on_as_sessions_like_any_other(
    client: httpx.AsyncClient,
) -> None:
    made = await group(client, group_id="g", seed=7)
    assert made.status_code == 201
    reply = GroupReply.model_validate_json(made.content)
    assert [session.session_id for session in reply.sessions] == ["g.0", "g.1", "g.2"]
    assert {session.trace_key for session in reply.sessions} == {reply.trace_key}
    assert {session.seed for session in reply.sessions} == {7}
    action = (await client.get("/v1/sessions/g.1/expert")).json()["action"]
    step = {"step_index": 0, "action": action}
    taken = (await client.post("/v1/sessions/g.1/steps", json=step)).json()
    forked = await client.post("/v1/sessions/g.1/forks", json={"count": 2, "fork_id": "f"})
    assert forked.status_code == 201
    forks = ForkReply.model_validate_json(forked.content)
    assert (forks.parent_id, forks.at_step, forks.fork_id) == ("g.1", 1, "f")
    assert forks.trace_key == taken["trace_key"]
    for session in forks.sessions:
        shown = (await client.get(f"/v1/sessions/{session.session_id}")).json()
        assert (shown["trace_key"], shown["step_index"]) == (taken["trace_key"], 1)
        assert (await client.delete(f"/v1/sessions/{session.session_id}")).status_code == 204
    assert (await client.get("/v1/sessions/g.1")).json()["step_index"] == 1


@pytest.mark.parametrize(
    ("members", "status", "slug"),
    [
        ({"size": 0}, 422, "invalid-input"),
        ({"size": MAX_BATCH + 1}, 422, "invalid-input"),
        ({"group_id": "x" * 121}, 422, "invalid-input"),
        ({"group_id": "a/b"}, 422, "invalid-input"),
        ({"task_id": None}, 422, "invalid-input"),
        ({"split": "dev", "index": 3}, 422, "invalid-input"),
        ({"seed": -1}, 422, "invalid-input"),
        ({"members": 3}, 422, "invalid-input"),
        ({"env_id": "steppo/Nope-v0"}, 404, "unknown-environment"),
        ({"task_id": "dev/none"}, 404, "unknown-task"),
        ({"options": {"nope": 1}}, 422, "invalid-options"),
    ],
)
async def test_a_wrong_group_is_answered_by_its_own_problem_and_leaves_nothing(
    client: httpx.AsyncClient, members: dict[str, Any], status: int, slug: str
) -> None:
    response = await group(client, **members)
    assert response.status_code == status, response.text
    assert response.json()["type"] == f"urn:steppo:problem:{slug}"
    assert (await client.get("/healthz")).json()["num_sessions"] == 0


@pytest.mark.parametrize(
    "body",
    [{"at_step": -1}, {"at_step": 1}, {"count": 0}, {"count": MAX_BATCH + 1}, {"fork_id": "a b"}],
)
async def test_a_fork_that_cannot_be_is_invalid_input(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    await group(client, group_id="g", size=1)
    response = await client.post("/v1/sessions/g.0/forks", json=body)
    assert response.status_code == 422
    assert response.json()["type"] == "urn:steppo:problem:invalid-input"
    assert (await client.get("/healthz")).json()["num_sessions"] == 1


async def test_a_session_that_is_not_there_has_no_forks(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/sessions/none/forks", json={})
    assert response.status_code == 404
    assert response.json()["type"] == "urn:steppo:problem:unknown-session"
