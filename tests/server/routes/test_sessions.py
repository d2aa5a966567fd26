from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steppo_env.registry import make
from steppo_env.wire import SessionReply, StepReply

if TYPE_CHECKING:
    from tests.server.conftest import Control, Serving

pytestmark = pytest.mark.anyio

KEYDOOR = "steppo/KeyDoor-v0"
STUB = "test/Stub-v0"


async def create(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/sessions", json={"env_id": STUB, "task_id": "train-0", **body})


async def step(
    client: httpx.AsyncClient, step_index: int, action: Any = "go", session_id: str = "s"
) -> httpx.Response:
    body = {"step_index": step_index, "action": action}
    return await client.post(f"/v1/sessions/{session_id}/steps", json=body)


def problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert (response.status_code, response.headers["content-type"]) == (
        status,
        "application/problem+json",
    ), response.text
    found: dict[str, Any] = response.json()
    assert found["type"] == f"urn:steppo:problem:{slug}"
    assert found["status"] == status
    return found


async def test_an_episode_over_http_is_the_episode_in_process(client: httpx.AsyncClient) -> None:
    env = make(KEYDOOR)
    first = env.start("test/3", 5)
    response = await client.post(
        "/v1/sessions", json={"env_id": KEYDOOR, "split": "test", "index": 3, "seed": 5}
    )
    assert response.status_code == 201
    state = SessionReply.model_validate_json(response.content)
    assert (state.task_id, state.split, state.seed, state.step_index) == ("test/3", "test", 5, 0)
    assert state.observation.to_observation(state.state_key) == first
    assert state.trace_key == env.trace_key
    while not env.has_ended:
        advice = (await client.get(f"/v1/sessions/{state.session_id}/expert")).json()
        expert = env.expert()
        assert expert is not None
        assert advice == {"action": expert.content, "distance": env.distance()}
        outcome = env.advance(expert)
        taken = await step(client, env.num_steps - 1, advice["action"], state.session_id)
        assert taken.status_code == 200
        reply = StepReply.model_validate_json(taken.content)
        assert reply.to_outcome() == outcome
        assert reply.trace_key == env.trace_key
    assert env.has_terminated
    ended = (await client.get(f"/v1/sessions/{state.session_id}")).json()
    assert (ended["terminated"], ended["truncated"], ended["trainable"]) == (True, False, True)
    advice = (await client.get(f"/v1/sessions/{state.session_id}/expert")).json()
    assert advice == {"action": None, "distance": None}


async def test_task_id_and_place_name_the_same_task(client: httpx.AsyncClient) -> None:
    by_id = await client.post("/v1/sessions", json={"env_id": KEYDOOR, "task_id": "dev/7"})
    by_place = await client.post(
        "/v1/sessions", json={"env_id": KEYDOOR, "split": "dev", "index": 7}
    )
    assert by_id.status_code == by_place.status_code == 201
    assert by_id.json()["trace_key"] == by_place.json()["trace_key"]
    assert by_id.json()["session_id"] != by_place.json()["session_id"]


async def test_the_same_creation_again_gets_the_same_bytes_also_after_steps(
    client: httpx.AsyncClient, control: Control
) -> None:
    first = await create(client, session_id="s")
    await step(client, 0)
    again = await create(client, session_id="s", lease_s=77)  # a lease is not part of what it is
    assert (again.status_code, again.content) == (201, first.content)
    assert control.num_begun == 2  # the second one beside the episode, for the reply
    assert (await client.get("/v1/sessions/s")).json()["step_index"] == 1


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"task_id": "train-1"}, {"env_id": KEYDOOR}, {"options": {"step_limit": 3}}],
)
async def test_another_creation_under_an_id_in_use_is_a_conflict(
    client: httpx.AsyncClient, change: dict[str, Any]
) -> None:
    await create(client, session_id="s")
    problem(await create(client, **{"session_id": "s", **change}), 409, "session-exists")


@pytest.mark.parametrize(
    ("change", "status", "slug"),
    [
        ({"env_id": "steppo/Nope-v0"}, 404, "unknown-environment"),
        ({"task_id": "none"}, 404, "unknown-task"),
        ({"task_id": None, "split": "train", "index": 99}, 404, "unknown-task"),
        ({"task_id": None, "split": "none", "index": 0}, 404, "unknown-task"),
        ({"env_id": KEYDOOR, "task_id": "dev/007"}, 404, "unknown-task"),
        ({"env_id": KEYDOOR, "task_id": "dev/" + "9" * 500}, 404, "unknown-task"),
        ({"env_id": KEYDOOR, "task_id": "dev/²"}, 404, "unknown-task"),
        ({"options": {"nope": 1}}, 422, "invalid-options"),
        ({"options": {"self": 1}}, 422, "invalid-options"),
        ({"options": {"render_mode": "ansi"}}, 422, "invalid-options"),
        ({"options": {"step_limit": 0}}, 422, "invalid-options"),
        ({"env_id": "steppo/MultihopQA-v0", "options": {"data": "/etc"}}, 422, "invalid-options"),
        ({"task_id": None}, 422, "invalid-input"),
        ({"split": "train", "index": 0}, 422, "invalid-input"),
        ({"task_id": None, "split": "train"}, 422, "invalid-input"),
        ({"task_id": None, "split": "train", "index": -1}, 422, "invalid-input"),
        ({"seed": -1}, 422, "invalid-input"),
        ({"seed": 2**63}, 422, "invalid-input"),
        ({"lease_s": 0}, 422, "invalid-input"),
        ({"lease_s": 86_401}, 422, "invalid-input"),
        ({"session_id": ""}, 422, "invalid-input"),
        ({"session_id": "a/b"}, 422, "invalid-input"),
        ({"session_id": "a\n"}, 422, "invalid-input"),
        ({"session_id": "x" * 129}, 422, "invalid-input"),
        ({"sead": 1}, 422, "invalid-input"),
    ],
)
async def test_a_wrong_creation_is_answered_by_its_own_problem_and_makes_nothing(
    client: httpx.AsyncClient, change: dict[str, Any], status: int, slug: str
) -> None:
    found = problem(await create(client, **change), status, slug)
    assert "Traceback" not in found["detail"]
    assert (await client.get("/healthz")).json()["num_sessions"] == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"env_id":"\\ud800"}',
        b"[" * 5000,
        b'{"env_id":"test/Stub-v0","task_id":"train-0","seed":' + b"9" * 5000 + b"}",
    ],
)
async def test_a_body_that_is_no_json_is_malformed(client: httpx.AsyncClient, body: bytes) -> None:
    problem(await client.post("/v1/sessions", content=body), 400, "malformed-request")


ODD = [
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e999",
    b"9" * 4000,
    b"9" * 5000,
    b"[" * 150 + b"]" * 150,
    b"[" * 100_000 + b"]" * 100_000,
    b'"\\ud800"',
    b'"\xff"',
    b'"\\u0000"',
    b"{}",
    b'{"tool_calls":[{"function":{"name":1,"arguments":NaN}}]}',
    b'{"content":{"text":"x"}}',
    b'{"tool_calls":{"a":1}}',
    b"null",
]


@pytest.mark.parametrize("value", ODD)
async def test_odd_json_is_a_clients_mistake_or_an_action_and_never_a_failure(
    client: httpx.AsyncClient, value: bytes
) -> None:
    await create(client, session_id="s")
    bodies = {
        "/v1/sessions/s/steps": [
            b'{"step_index":0,"action":' + value + b"}",
            b'{"step_index":0,"action":{"x":' + value + b"}}",
            b'{"step_index":' + value + b',"action":"go"}',
        ],
        "/v1/sessions": [
            b'{"env_id":"test/Stub-v0","task_id":"train-0","options":{"x":' + value + b"}}",
            b'{"env_id":"test/Stub-v0","task_id":"train-0","options":{"step_limit":'
            + value
            + b"}}",
            b'{"env_id":"test/Stub-v0","split":"train","index":' + value + b"}",
        ],
        "/v1/batch/steps": [
            b'{"steps":[{"session_id":"s","step_index":0,"action":{"x":' + value + b"}}]}"
        ],
    }
    for path, contents in bodies.items():
        for content in contents:
            response = await client.post(path, content=content)
            assert response.status_code < 500, (content[:60], response.text)
            assert (await client.get("/v1/sessions/s")).json()["trainable"] is True
            json.loads(response.content)


@given(st.binary(max_size=60) | st.text(max_size=30).map(lambda text: text.encode()))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_bytes_make_the_server_fail(control: Control, serving: Serving, body: bytes) -> None:
    async def send() -> list[int]:
        async with serving() as client:
            await create(client, session_id="s")
            paths = ("/v1/sessions", "/v1/sessions/s/steps", "/v1/batch/steps")
            return [(await client.post(path, content=body)).status_code for path in paths]

    assert all(400 <= status < 500 for status in anyio.run(send))


async def test_an_oversized_body_is_refused_declared_or_chunked(serving: Serving) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 100

    async with serving(max_body_bytes=2000) as client:
        declared = await client.post("/v1/sessions", content=b" " * 2001)
        chunked = await client.post("/v1/sessions", content=chunks())
    assert problem(declared, 413, "payload-too-large")["max_body_bytes"] == 2000
    problem(chunked, 413, "payload-too-large")


async def test_a_step_again_gets_the_same_bytes_and_another_action_a_conflict(
    client: httpx.AsyncClient, control: Control
) -> None:
    await create(client, session_id="s")
    first = await step(client, 0, "a")
    await step(client, 1, "b")
    again = await step(client, 0, "a")
    assert (again.status_code, again.content) == (200, first.content)
    assert problem(await step(client, 0, "b"), 409, "step-conflict")["step_index"] == 0
    assert control.acts == ["a", "b", "a"]  # made anew beside the episode


async def test_a_gap_in_the_steps_is_told_with_the_index_expected(
    client: httpx.AsyncClient,
) -> None:
    await create(client, session_id="s")
    assert problem(await step(client, 1), 409, "step-index-mismatch")["expected"] == 0


async def test_after_the_end_there_is_no_step_but_the_last_one_again(
    client: httpx.AsyncClient,
) -> None:
    await create(client, session_id="s")
    last = await step(client, 0, "end")
    assert last.json()["terminated"] is True
    found = problem(await step(client, 1), 409, "episode-ended")
    assert (found["num_steps"], found["trainable"]) == (1, True)
    assert (await step(client, 0, "end")).content == last.content


async def test_the_step_limit_truncates_and_does_not_terminate(client: httpx.AsyncClient) -> None:
    await create(client, session_id="s", options={"step_limit": 1})
    reply = (await step(client, 0)).json()
    assert (reply["truncated"], reply["terminated"], reply["trainable"]) == (True, False, True)


async def test_an_assistant_message_is_an_action(client: httpx.AsyncClient) -> None:
    await create(client, session_id="s")
    reply = await step(client, 0, {"role": "assistant", "content": "end"})
    assert reply.json()["terminated"] is True


@pytest.mark.parametrize("action", ["raise", "surrogate", "object"])
async def test_an_environment_that_raises_ends_its_own_episode_as_not_trainable(
    client: httpx.AsyncClient, action: str
) -> None:
    await create(client, session_id="s")
    await create(client, session_id="t")
    first = problem(await step(client, 0, action), 500, "env-error")
    assert first["trainable"] is False
    assert problem(await step(client, 0, action), 500, "env-error") == first
    assert (await client.get("/v1/sessions/s")).json()["trainable"] is False
    assert (await step(client, 0, "go", "t")).status_code == 200
    assert (await client.get("/v1/sessions/t")).json()["trainable"] is True


async def test_a_beginning_that_raises_is_an_env_error(client: httpx.AsyncClient) -> None:
    problem(await create(client, task_id="broken"), 500, "env-error")


async def test_a_step_over_its_deadline_is_answered_with_504(serving: Serving) -> None:
    async with serving(step_deadline_s=0.05) as client:
        await create(client, session_id="s")
        found = problem(await step(client, 0, "wait x"), 504, "deadline-exceeded")
    assert found["trainable"] is False


async def test_a_full_server_says_when_to_try_again(serving: Serving) -> None:
    async with serving(max_sessions=1) as client:
        await create(client, session_id="s")
        response = await create(client)
        problem(response, 503, "capacity-exceeded")
        assert response.headers["retry-after"] == "5"
        # Full or not, sessions that exist go on.
        assert (await step(client, 0)).status_code == 200


async def test_a_key_with_as_many_sessions_as_it_may_have_is_told_so(serving: Serving) -> None:
    async with serving(max_sessions_per_key=1) as client:
        await create(client, session_id="s")
        response = await create(client)
        problem(response, 429, "too-many-requests")
        assert response.headers["retry-after"] == "5"
        assert (await step(client, 0)).status_code == 200


async def test_delete_closes_the_environment_and_a_second_one_finds_nothing(
    client: httpx.AsyncClient, control: Control
) -> None:
    await create(client, session_id="s")
    response = await client.delete("/v1/sessions/s")
    assert (response.status_code, response.content) == (204, b"")
    assert control.num_closed == 1
    problem(await client.delete("/v1/sessions/s"), 404, "unknown-session")
    assert (await create(client, session_id="s", seed=1)).status_code == 201


@pytest.mark.parametrize("session_id", ["none", "%00", "%F0%9F%92%A9", "x" * 1000, "%FF"])
async def test_an_unknown_session_is_not_found_by_any_route(
    client: httpx.AsyncClient, session_id: str
) -> None:
    path = f"/v1/sessions/{session_id}"
    responses = [
        await client.get(path),
        await client.delete(path),
        await client.get(f"{path}/expert"),
        await client.post(f"{path}/steps", json={"step_index": 0, "action": "x"}),
    ]
    for response in responses:
        found = problem(response, 404, "unknown-session")
        assert len(found["detail"]) < 600


async def test_an_expert_that_raises_is_an_env_error(client: httpx.AsyncClient) -> None:
    await create(client, session_id="s")
    await step(client, 0, "no advice")
    problem(await client.get("/v1/sessions/s/expert"), 500, "env-error")


async def test_no_reply_of_an_episode_shows_the_solution(client: httpx.AsyncClient) -> None:
    env = make("steppo/MultihopQA-v0")
    task = env.tasks.at("test", 3)
    body = {"env_id": "steppo/MultihopQA-v0", "split": "test", "index": 3, "session_id": "s"}
    replies = [await client.post("/v1/sessions", json=body), await client.get("/v1/sessions/s")]
    assert replies[0].status_code == 201
    for field in ("answer", "answers", "aliases", "solution", "supporting"):
        assert f'"{field}"' not in replies[0].text
    answers = [getattr(task, name) for name in ("answer", "answers") if hasattr(task, name)]
    texts = [item for value in answers for item in ([value] if isinstance(value, str) else value)]
    assert texts
    for reply in replies:
        assert all(text not in reply.text for text in texts)
