from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from steppo_env.wire import MAX_LEASES, LeaseResults

if TYPE_CHECKING:
    from tests.server.conftest import Control

pytestmark = pytest.mark.anyio


async def create(client: httpx.AsyncClient, *session_ids: str) -> None:
    for session_id in session_ids:
        body = {"env_id": "test/Light-v0", "task_id": "train-0", "session_id": session_id}
        assert (await client.post("/v1/sessions", json=body)).status_code == 201


async def renew(client: httpx.AsyncClient, *session_ids: str, **members: Any) -> LeaseResults:
    response = await client.post("/v1/leases", json={"session_ids": session_ids, **members})
    assert response.status_code == 200, response.text
    return LeaseResults.model_validate_json(response.content)


async def test_many_leases_are_renewed_at_once_each_with_its_own_result(
    client: httpx.AsyncClient,
) -> None:
    await create(client, "a", "b")
    begun = time.time()
    results = (await renew(client, "a", "none", "b")).results
    assert [(result.session_id, result.status) for result in results] == [
        ("a", 200),
        ("none", 404),
        ("b", 200),
    ]
    for result in (results[0], results[2]):
        assert result.lease_expires_at is not None
        assert result.lease_expires_at >= begun + 900
    assert results[1].lease_expires_at is None
    assert results[1].problem is not None
    assert results[1].problem.type == "urn:steppo:problem:unknown-session"


async def test_reviving_is_for_sessions_that_are_known(client: httpx.AsyncClient) -> None:
    await create(client, "a")
    results = (await renew(client, "none", "a", revive=True)).results
    assert [result.status for result in results] == [404, 200]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"session_ids": []},
        {"session_ids": ["a/b"]},
        {"session_ids": "a"},
        {"session_ids": ["a"], "revive": "perhaps"},
        {"session_ids": ["a"], "revived": True},
        {"session_ids": ["a"] * (MAX_LEASES + 1)},
    ],
    ids=["nothing", "none", "odd-id", "text", "odd-revive", "unknown-member", "too-many"],
)
async def test_a_request_of_the_wrong_form_is_invalid_input(
    client: httpx.AsyncClient, control: Control, body: dict[str, Any]
) -> None:
    response = await client.post("/v1/leases", json=body)
    assert response.status_code == 422
    assert response.json()["type"] == "urn:steppo:problem:invalid-input"
