from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from tests.server.conftest import Serving

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_tells_version_and_how_full_the_server_is(serving: Serving, path: str) -> None:
    async with serving(max_sessions=3) as client:
        await client.post("/v1/sessions", json={"env_id": "test/Stub-v0", "task_id": "train-0"})
        response = await client.get(path)
    assert response.json() == {
        "status": "ok",
        "version": version("steppo-env"),
        "num_sessions": 1,
        "max_sessions": 3,
    }


async def test_a_session_that_is_closed_is_counted_no_more(client: httpx.AsyncClient) -> None:
    body = {"env_id": "test/Stub-v0", "task_id": "train-0", "session_id": "s"}
    await client.post("/v1/sessions", json=body)
    await client.delete("/v1/sessions/s")
    assert (await client.get("/healthz")).json()["num_sessions"] == 0
