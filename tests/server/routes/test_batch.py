from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import httpx
import pytest

from steppo_env.wire import MAX_BATCH, SessionResults, StepResults
from steppo_server.sessions import SessionManager

if TYPE_CHECKING:
    from tests.server.conftest import Control, Serving

pytestmark = pytest.mark.anyio

STUB = "test/Stub-v0"


def new(session_id: str, **changes: Any) -> dict[str, Any]:
    return {"env_id": STUB, "task_id": "train-0", "session_id": session_id, **changes}


def item(session_id: str, step_index: int = 0, action: str = "go") -> dict[str, Any]:
    return {"session_id": session_id, "step_index": step_index, "action": action}


async def create(client: httpx.AsyncClient, *items: dict[str, Any]) -> SessionResults:
    response = await client.post("/v1/batch/sessions", json={"sessions": items})
    assert response.status_code == 200
    return SessionResults.model_validate_json(response.content)


async def step(client: httpx.AsyncClient, *items: dict[str, Any]) -> StepResults:
    response = await client.post("/v1/batch/steps", json={"steps": items})
    assert response.status_code == 200
    return StepResults.model_validate_json(response.content)


async def test_results_stand_in_the_order_of_the_request_each_with_its_own_status(
    client: httpx.AsyncClient,
) -> None:
    results = (
        await create(
            client, new("a"), new("b", task_id="none"), new("c", task_id="broken"), new("d")
        )
    ).results
    assert [result.status for result in results] == [201, 404, 500, 201]
    assert [result.session.session_id for result in results if result.session] == ["a", "d"]
    problems = [result.problem for result in results if result.problem]
    assert [problem.type.rpartition(":")[2] for problem in problems] == [
        "unknown-task",
        "env-error",
    ]
    assert [problem.status for problem in problems] == [404, 500]


async def test_one_step_that_fails_fails_no_other(client: httpx.AsyncClient) -> None:
    await create(client, new("a"), new("b"), new("c"))
    results = (
        await step(client, item("a"), item("b", 0, "raise"), item("none"), item("c", 3), item("c"))
    ).results
    assert [result.status for result in results] == [200, 500, 404, 409, 200]
    assert [result.step is None for result in results] == [False, True, True, True, False]
    failed = results[1].problem
    assert failed is not None
    assert failed.model_dump()["trainable"] is False


async def test_text_that_is_no_utf8_does_not_spoil_the_other_items(
    client: httpx.AsyncClient,
) -> None:
    await create(client, new("a"), new("b"))
    results = (await step(client, item("a", 0, "surrogate"), item("b"))).results
    assert [result.status for result in results] == [500, 200]


async def test_steps_of_one_session_are_taken_in_the_order_given(
    client: httpx.AsyncClient, control: Control
) -> None:
    await create(client, new("a"), new("b"))
    items = [item("a", 0, "1"), item("b", 0, "x"), item("a", 1, "2"), item("a", 2, "3")]
    results = (await step(client, *items)).results
    assert [result.step.step_index for result in results if result.step] == [0, 0, 1, 2]
    assert [text for text in control.acts if text != "x"] == ["1", "2", "3"]


async def test_a_batch_again_gets_the_same_bytes_and_steps_nothing(
    client: httpx.AsyncClient, control: Control
) -> None:
    await create(client, new("a"), new("b"))
    body = {"steps": [item("a"), item("b"), item("a", 1)]}
    first = await client.post("/v1/batch/steps", json=body)
    again = await client.post("/v1/batch/steps", json=body)
    assert again.content == first.content
    # The older reply of "a" was made anew, beside its episode.
    assert len(control.acts) == 3 + 1
    states = [(await client.get(f"/v1/sessions/{name}")).json() for name in ("a", "b")]
    assert [state["step_index"] for state in states] == [2, 1]


async def test_the_same_creation_twice_in_one_batch_begins_one_session(
    client: httpx.AsyncClient, control: Control
) -> None:
    first, second = (await create(client, new("a"), new("a"))).results
    assert first == second
    assert control.num_begun == 1


async def test_when_there_is_room_for_some_only_those_are_made(serving: Serving) -> None:
    async with serving(max_sessions=2) as client:
        results = (await create(client, *(new(f"s{index}") for index in range(4)))).results
    assert [result.status for result in results] == [201, 201, 503, 503]
    refused = results[3].problem
    assert refused is not None
    assert refused.model_dump()["retry_after_s"] == 5


async def test_other_sessions_of_a_batch_do_not_wait_for_a_slow_one(
    client: httpx.AsyncClient, control: Control
) -> None:
    await create(client, new("slow"), new("quick", env_id="test/Light-v0"))
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: step(client, item("slow", 0, "wait x"), item("quick")))
        await control.entered("x")
        with anyio.fail_after(10):
            while (await client.get("/v1/sessions/quick")).json()["step_index"] == 0:
                await anyio.lowlevel.checkpoint()
        control.open("x")


async def test_a_batch_has_one_to_so_many_items(client: httpx.AsyncClient) -> None:
    for count, status in ((0, 422), (1, 200), (MAX_BATCH, 200), (MAX_BATCH + 1, 422)):
        body = {"steps": [item("none")] * count}
        response = await client.post("/v1/batch/steps", json=body)
        assert response.status_code == status
    body = {"sessions": [new("a")] * (MAX_BATCH + 1)}
    assert (await client.post("/v1/batch/sessions", json=body)).status_code == 422


async def test_an_item_of_the_wrong_form_refuses_the_batch_before_anything_is_done(
    client: httpx.AsyncClient, control: Control
) -> None:
    await create(client, new("a"))
    body = {"steps": [item("a"), {**item("a", 1), "acton": "x"}]}
    response = await client.post("/v1/batch/steps", json=body)
    assert response.status_code == 422
    assert "steps.1.acton" in response.json()["detail"]
    assert control.acts == []


async def test_a_bug_in_one_item_is_logged_and_spares_the_others(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await create(client, new("a"), new("b"))
    real = SessionManager.step

    async def buggy(self: SessionManager, owner: str, session_id: str, request: Any) -> bytes:
        if session_id == "a":
            raise KeyError("/srv/secret")
        return await real(self, owner, session_id, request)

    monkeypatch.setattr(SessionManager, "step", buggy)
    with caplog.at_level(logging.ERROR, "steppo.server"):
        results = (await step(client, item("a"), item("b"))).results
    assert [result.status for result in results] == [500, 200]
    assert results[0].problem is not None
    assert "secret" not in results[0].problem.model_dump_json()
    assert "secret" in caplog.text


async def test_a_failure_inside_a_batch_is_logged_like_any_other(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await create(client, new("a"))
    with caplog.at_level(logging.ERROR, "steppo.server"):
        await step(client, item("a", 0, "raise"))
    assert "act broke" in caplog.text
