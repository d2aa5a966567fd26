from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from steppo_env import registry
from steppo_env.catalogue import Catalogue
from steppo_env.registry import registered_ids

if TYPE_CHECKING:
    from tests.server.conftest import Control, Serving

pytestmark = pytest.mark.anyio

KEYDOOR = "/v1/envs/steppo%2FKeyDoor-v0"


async def test_every_registered_environment_and_every_variant_is_listed(
    serving: Serving, tmp_path: Path
) -> None:
    path = tmp_path / "serve.toml"
    path.write_text('[environments.tiny]\nenv_id = "steppo/KeyDoor-v0"\noptions = { size = 3 }\n')
    async with serving(Catalogue.from_toml(path)) as client:
        listed = (await client.get("/v1/envs")).json()["environments"]
    assert [item["env_id"] for item in listed] == [*registered_ids(), "tiny"]
    tiny = listed[-1]
    assert tiny["registered_id"] == "steppo/KeyDoor-v0"
    assert tiny["is_available"] is True
    assert tiny["summary"].startswith("A grid of")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_package_at_all:Env", "no_such_package_at_all"),
        ("json:NoSuchName", "NoSuchName"),
        ("json:dumps", "not a complete StepEnv"),
    ],
)
async def test_a_plugin_that_cannot_be_loaded_is_listed_with_its_problem(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, target: str, reason: str
) -> None:
    points = registry._entry_points()
    broken = (EntryPoint("bad/Env-v0", target, registry.GROUP),)
    monkeypatch.setattr(registry, "_entry_points", lambda: {**points, "bad/Env-v0": broken})
    async with serving() as client:
        response = await client.get("/v1/envs")
        created = await client.post("/v1/sessions", json={"env_id": "bad/Env-v0", "task_id": "x"})
    assert response.status_code == 200
    listed = {item["env_id"]: item for item in response.json()["environments"]}
    assert listed["bad/Env-v0"]["is_available"] is False
    assert reason in listed["bad/Env-v0"]["problem"]
    assert listed["test/Stub-v0"]["is_available"] is True
    assert created.status_code in (500, 501)
    assert created.headers["content-type"] == "application/problem+json"


async def test_an_id_can_be_written_with_its_slash_or_encoded(client: httpx.AsyncClient) -> None:
    for suffix in ("", "/tasks?split=dev&limit=2"):
        encoded = await client.get(KEYDOOR + suffix)
        plain = await client.get(f"/v1/envs/steppo/KeyDoor-v0{suffix}")
        assert encoded.status_code == plain.status_code == 200
        assert encoded.content == plain.content
        assert b"%2F" in encoded.request.url.raw_path
        assert b"%2F" not in plain.request.url.raw_path


async def test_an_environment_tells_its_splits_its_options_and_which_are_fixed(
    serving: Serving, tmp_path: Path
) -> None:
    path = tmp_path / "serve.toml"
    path.write_text('[environments.tiny]\nenv_id = "steppo/KeyDoor-v0"\noptions = { size = 3 }\n')
    async with serving(Catalogue.from_toml(path)) as client:
        detail = (await client.get("/v1/envs/tiny")).json()
    assert detail["splits"] == {"train": 100_000, "dev": 512, "test": 512}
    assert detail["fixed_options"] == ["size"]
    assert detail["step_limit"] == 24
    assert set(detail["options"]["properties"]) >= {"size", "step_limit", "rendering"}


async def test_paging_by_cursor_sees_every_task_once_and_in_order(
    client: httpx.AsyncClient,
) -> None:
    seen: list[str] = []
    cursor: str | None = None
    while True:
        parameters = {"split": "dev", "limit": "100"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(f"{KEYDOOR}/tasks", params=parameters)).json()
        assert page["num_tasks"] == 512
        seen += [task["task_id"] for task in page["tasks"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"dev/{index}" for index in range(512)]


async def test_a_page_that_ends_with_the_split_has_no_cursor(client: httpx.AsyncClient) -> None:
    page = (await client.get(f"{KEYDOOR}/tasks?split=dev&limit=512")).json()
    assert page["next_cursor"] is None


async def test_options_decide_which_tasks_are_listed(client: httpx.AsyncClient) -> None:
    parameters = {"split": "dev", "limit": "30"}
    default = await client.get(f"{KEYDOOR}/tasks", params=parameters)
    large = await client.get(
        f"{KEYDOOR}/tasks", params={**parameters, "options": json.dumps({"size": 20})}
    )
    assert large.status_code == 200
    assert large.json() != default.json()


@pytest.mark.parametrize(
    ("env_id", "split"),
    [("steppo/KeyDoor-v0", "dev"), ("steppo/MultihopQA-v0", "test")],
)
async def test_a_listed_task_has_public_fields_only(
    client: httpx.AsyncClient, env_id: str, split: str
) -> None:
    page = (await client.get(f"/v1/envs/{env_id}/tasks?split={split}&limit=20")).json()
    assert len(page["tasks"]) == 20
    assert {tuple(sorted(task)) for task in page["tasks"]} == {
        ("index", "labels", "split", "task_id")
    }


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/envs/steppo%2FNope-v0", 404),
        ("/v1/envs/steppo%2FNope-v0/tasks?split=dev", 404),
        ("/v1/envs/", 404),
        (f"{KEYDOOR}/tasks?split=nope", 404),
        (f"{KEYDOOR}/tasks", 422),
        (f"{KEYDOOR}/tasks?split=dev&limit=0", 422),
        (f"{KEYDOOR}/tasks?split=dev&limit=1001", 422),
        (f"{KEYDOOR}/tasks?split=dev&limit=x", 422),
        (f"{KEYDOOR}/tasks?split=dev&cursor=-1", 422),
        (f"{KEYDOOR}/tasks?split=dev&cursor=513", 422),
        (f"{KEYDOOR}/tasks?split=dev&cursor=%C2%B2", 422),
        (f"{KEYDOOR}/tasks?split=dev&cursor={'9' * 33}", 422),
        (f"{KEYDOOR}/tasks?split=dev&options=x", 422),
        (f"{KEYDOOR}/tasks?split=dev&options=[]", 422),
        (f'{KEYDOOR}/tasks?split=dev&options={{"size":NaN}}', 422),
        (f'{KEYDOOR}?options={{"size":99}}', 422),
        (f'{KEYDOOR}?options={{"self":1}}', 422),
        ("/v1/envs/steppo%2FMultihopQA-v0?options=%7B%22data%22:%22/etc%22%7D", 422),
        ("/v1/envs/%FF%FE", 404),
        ("/v1/envs/%00", 404),
    ],
)
async def test_a_clients_mistake_is_a_problem_that_shows_no_path_of_the_server(
    client: httpx.AsyncClient, path: str, status: int
) -> None:
    response = await client.get(path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert str(Path(registry.__file__).parents[1]) not in response.text


async def test_a_misspelt_environment_is_answered_with_the_closest_one(
    client: httpx.AsyncClient,
) -> None:
    problem = (await client.get("/v1/envs/steppo/KeyDor-v0")).json()
    assert problem["type"] == "urn:steppo:problem:unknown-environment"
    assert "Did you mean steppo/KeyDoor-v0?" in problem["detail"]
    assert "steppo/KeyDoor-v0" in problem["environments"]


async def test_describing_a_blocking_environment_waits_its_turn_behind_its_episodes(
    serving: Serving, control: Control
) -> None:
    async with serving(queue_deadline_s=0.05) as client:
        body = {"env_id": "test/Stub-v0", "task_id": "train-0", "session_id": "s"}
        await client.post("/v1/sessions", json=body)
        async with anyio.create_task_group() as group:

            async def held() -> None:
                await client.post(
                    "/v1/sessions/s/steps", json={"step_index": 0, "action": "wait x"}
                )

            group.start_soon(held)
            await control.entered("x")
            busy = await client.get("/v1/envs/test%2FStub-v0")
            assert busy.status_code == 503
            assert "retry-after" in busy.headers
            assert (await client.get(KEYDOOR)).status_code == 200
            control.open("x")
