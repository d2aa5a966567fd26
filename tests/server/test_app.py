from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from steppo_env.errors import InvalidInput
from steppo_server import chores as chores_module
from steppo_server.app import create_app
from steppo_server.sessions import SessionManager
from steppo_server.settings import ServerSettings

if TYPE_CHECKING:
    from tests.server.conftest import Control, Serving

pytestmark = pytest.mark.anyio

ROUTES = {
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/v1/envs"),
    ("get", "/v1/envs/{env_id}"),
    ("get", "/v1/envs/{env_id}/tasks"),
    ("post", "/v1/sessions"),
    ("get", "/v1/sessions/{session_id}"),
    ("delete", "/v1/sessions/{session_id}"),
    ("post", "/v1/sessions/{session_id}/steps"),
    ("get", "/v1/sessions/{session_id}/expert"),
    ("post", "/v1/sessions/{session_id}/forks"),
    ("post", "/v1/groups"),
    ("post", "/v1/leases"),
    ("post", "/v1/batch/sessions"),
    ("post", "/v1/batch/steps"),
}
CREATING = {"/v1/sessions", "/v1/groups", "/v1/sessions/{session_id}/forks"}
SETTINGS = ServerSettings()


async def new(client: httpx.AsyncClient, session_id: str, env_id: str = "test/Stub-v0") -> None:
    body = {"env_id": env_id, "task_id": "train-0", "session_id": session_id}
    assert (await client.post("/v1/sessions", json=body)).status_code == 201


async def step(client: httpx.AsyncClient, session_id: str, action: str) -> httpx.Response:
    body = {"step_index": 0, "action": action}
    return await client.post(f"/v1/sessions/{session_id}/steps", json=body)


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    document: dict[str, Any] = (await client.get("/openapi.json")).json()
    return document


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


async def test_a_slow_environment_blocks_neither_the_event_loop_nor_other_environments(
    client: httpx.AsyncClient, control: Control
) -> None:
    await new(client, "slow")
    await new(client, "quick", "test/Light-v0")
    async with anyio.create_task_group() as group:
        group.start_soon(step, client, "slow", "wait x")
        await control.entered("x")
        with anyio.fail_after(10):
            assert (await client.get("/healthz")).status_code == 200
            assert (await step(client, "quick", "go")).status_code == 200
            assert (await client.get("/v1/envs")).status_code == 200
        control.open("x")


async def test_a_slow_beginning_blocks_neither_the_event_loop_nor_other_environments(
    client: httpx.AsyncClient, control: Control
) -> None:
    body = {"env_id": "test/Stub-v0", "task_id": "slow", "session_id": "slow"}

    async def begin() -> None:
        await client.post("/v1/sessions", json=body)

    async with anyio.create_task_group() as group:
        group.start_soon(begin)
        await control.entered("begin")
        with anyio.fail_after(10):
            assert (await client.get("/healthz")).json()["num_sessions"] == 1
            await new(client, "quick", "test/Light-v0")
            assert (await client.get("/v1/envs")).status_code == 200
        control.open("begin")


async def test_the_document_lists_every_route_and_no_other(document: dict[str, Any]) -> None:
    listed = {(method, path) for path, item in document["paths"].items() for method in item}
    assert listed == ROUTES


async def test_every_reply_and_every_body_has_a_schema(document: dict[str, Any]) -> None:
    for method, path in ROUTES:
        operation = document["paths"][path][method]
        assert operation["summary"]
        success = {"post": "201" if path in CREATING else "200", "delete": "204"}
        reply = operation["responses"][success.get(method, "200")]
        if path == "/metrics":
            assert list(reply["content"]) == ["text/plain"]
        elif method != "delete":
            assert "$ref" in reply["content"]["application/json"]["schema"], path
        if method == "post":
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            assert schema["additionalProperties"] is False
            assert schema["properties"]


async def test_every_error_in_the_document_is_a_problem(document: dict[str, Any]) -> None:
    for method, path in ROUTES:
        responses = document["paths"][path][method]["responses"]
        assert "default" in responses
        for status, response in responses.items():
            if status == "default" or int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], (path, status)
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def test_every_reference_in_the_document_resolves(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert found
    for reference in found:
        assert reference.startswith("#/components/schemas/")
        assert reference.rpartition("/")[2] in document["components"]["schemas"]


async def test_operations_have_ids_of_their_own(document: dict[str, Any]) -> None:
    ids = [document["paths"][path][method]["operationId"] for method, path in ROUTES]
    assert len(set(ids)) == len(ROUTES)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/docs", 404),
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/sessions/", 404),
        ("GET", "/v1/sessions", 405),
        ("PUT", "/v1/sessions/s", 405),
        ("DELETE", "/v1/envs", 405),
    ],
)
async def test_an_unknown_route_or_method_is_a_problem(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/sessions/s", "DELETE, GET"),
        ("/v1/sessions", "POST"),
        ("/v1/envs/test/Stub-v0/tasks", "GET"),
    ],
)
async def test_a_refused_method_is_answered_with_all_that_the_path_takes(
    client: httpx.AsyncClient, path: str, methods: str
) -> None:
    assert (await client.put(path)).headers["allow"] == methods


async def test_the_document_says_that_a_task_is_named_in_one_way(document: dict[str, Any]) -> None:
    for path in ("/v1/sessions", "/v1/groups"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        by_id, by_place = body["schema"]["oneOf"]
        assert by_id["required"] == ["task_id"]
        assert by_place["required"] == ["split", "index"]
        assert by_id["properties"]["index"] == by_place["properties"]["task_id"] == {"type": "null"}


async def test_pages_of_other_sites_are_given_no_leave(client: httpx.AsyncClient) -> None:
    headers = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    for method, path in (("OPTIONS", "/v1/sessions"), ("GET", "/v1/envs")):
        response = await client.request(method, path, headers=headers)
        assert not [name for name in response.headers if name.startswith("access-control")]


async def test_stopping_closes_every_environment(serving: Serving, control: Control) -> None:
    async with serving() as client:
        for index in range(3):
            await new(client, f"s{index}", "test/Light-v0" if index else "test/Stub-v0")
        assert control.num_closed == 0
    assert control.num_closed == 3


async def test_expired_sessions_are_freed_by_themselves_also_after_a_failed_sweep(
    serving: Serving,
    control: Control,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(chores_module, "SWEEP_EVERY_S", 0.001)
    sweep = SessionManager.sweep
    swept = anyio.Event()
    failures = iter([True])

    async def failing(self: SessionManager) -> int:
        if next(failures, False):
            raise KeyError("sweep broke")
        count = await sweep(self)
        if count:
            swept.set()
        return count

    monkeypatch.setattr(SessionManager, "sweep", failing)
    with caplog.at_level(logging.ERROR, "steppo.server"):
        async with serving(default_lease_s=1e-6) as client:
            await new(client, "s")
            with anyio.fail_after(10):
                await swept.wait()
            response = await client.get("/v1/sessions/s")
    assert response.status_code == 410
    assert response.json()["last_step_index"] == -1
    assert control.num_closed == 1
    assert "sweep broke" in caplog.text


def test_a_variable_out_of_bounds_is_told_when_the_app_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STEPPO_SERVER_MAX_SESSIONS", "0")
    with pytest.raises(InvalidInput, match="max_sessions"):
        create_app()
    assert create_app(settings=SETTINGS).title == "steppo-env"
