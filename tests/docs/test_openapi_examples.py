"""The examples of the OpenAPI document are of their models, and what the server says to them."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from steppo_env import wire
from steppo_env import wire_examples as examples
from steppo_env.errors import SteppoError, error_from_problem
from steppo_server.app import create_app
from steppo_server.documented import PROBLEMS
from steppo_server.settings import ServerSettings

MODELS = sorted(
    (
        model
        for name in wire.__all__
        if isinstance(model := getattr(wire, name), type) and issubclass(model, BaseModel)
    ),
    key=lambda model: model.__name__,
)
UNSHOWN = {"Reply", "Request"}
PARTS = {
    "EnvSummary",
    "FunctionModel",
    "FunctionSpecModel",
    "LeaseResult",
    "MessageModel",
    "ObservationModel",
    "SessionResult",
    "StepResult",
    "TaskModel",
    "ToolCallModel",
    "ToolModel",
}
"""Shown inside the examples of what they are parts of."""


def examples_of(model: type[BaseModel]) -> list[Any]:
    found: list[Any] = model.model_json_schema().get("examples", [])
    return found


def without_clock(value: Any) -> Any:
    """Leave out when leases expire."""
    if isinstance(value, dict):
        return {name: without_clock(v) for name, v in value.items() if name != "lease_expires_at"}
    return [without_clock(item) for item in value] if isinstance(value, list) else value


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings=ServerSettings(journal="sqlite://"))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client,
    ):
        yield client


def test_every_document_of_a_call_has_an_example() -> None:
    without = {model.__name__ for model in MODELS if not examples_of(model)}
    assert without == UNSHOWN | PARTS


@pytest.mark.parametrize("model", MODELS, ids=lambda model: str(model.__name__))
def test_every_example_is_of_its_model(model: type[BaseModel]) -> None:
    for example in examples_of(model):
        read = model.model_validate_json(json.dumps(example), strict=True)
        assert read.model_dump(exclude_unset=True) == example  # so that no member is unknown
    for name, field in model.model_fields.items():
        for value in field.examples or ():
            model.model_validate({**examples_of(model)[0], name: value})


def test_example_actions_are_read_without_a_flaw() -> None:
    text, message = map(wire.read_action, examples.ACTIONS)  # type: ignore[arg-type]
    assert text.content == examples.ACTIONS[0]
    assert not message.issues
    (call,) = message.tool_calls
    assert (call.name, call.arguments) == ("search", {"query": "author of Emma"})


@pytest.mark.anyio
async def test_the_server_answers_the_example_requests_with_the_example_replies(
    client: httpx.AsyncClient,
) -> None:
    async def post(path: str, body: object) -> Any:
        response = await client.post(path, json=body)
        assert response.is_success, response.text
        return without_clock(response.json())

    async def get(path: str) -> Any:
        response = await client.get(path)
        assert response.is_success, response.text
        return without_clock(response.json())

    for path, body, reply in (
        ("/v1/sessions", examples.CREATE_SESSION, examples.SESSION_REPLY),
        ("/v1/sessions/mine/steps", examples.STEP_REQUEST, examples.STEP_REPLY),
        ("/v1/sessions/mine/forks", examples.FORK_REQUEST, examples.FORK_REPLY),
        ("/v1/groups", examples.CREATE_GROUP, examples.GROUP_REPLY),
        ("/v1/batch/sessions", examples.BATCH_SESSIONS, examples.SESSION_RESULTS),
        ("/v1/batch/steps", examples.BATCH_STEPS, examples.STEP_RESULTS),
        ("/v1/leases", examples.LEASE_REQUEST, examples.LEASE_RESULTS),
    ):
        assert await post(path, body) == without_clock(reply), path
    assert await get("/v1/sessions/mine/expert") == examples.EXPERT_REPLY
    keydoor = "/v1/envs/steppo/KeyDoor-v0"
    assert await get(f"{keydoor}/tasks?split=dev&limit=2") == examples.TASK_PAGE
    problem = await client.post("/v1/sessions/mine/steps", json={"step_index": 3, "action": "x"})
    assert problem.json() == examples.PROBLEM

    shown: Any = examples.ENV_DETAIL
    detail = await get(keydoor)
    assert {**detail, "options": None} == {**shown, "options": None}
    (size,) = shown["options"]["properties"].values()
    assert size.items() <= detail["options"]["properties"]["size"].items()
    listed: Any = examples.ENV_LIST
    assert listed["environments"][0] in (await get("/v1/envs"))["environments"]
    assert (await get("/healthz")).keys() == examples.HEALTH.keys()


@pytest.mark.anyio
async def test_each_status_of_the_document_has_its_problem_types(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    shown: set[str] = set()
    for path, item in document["paths"].items():
        for operation in item.values():
            for status, response in operation["responses"].items():
                content = response.get("content", {}).get("application/problem+json")
                if content is None:
                    continue
                values = {slug: example["value"] for slug, example in content["examples"].items()}
                shown |= values.keys()
                if status == "default":
                    assert list(values) == ["unauthorized", "forbidden", "internal-error"]
                else:
                    kinds = [error for error in PROBLEMS if str(error.status) == status]
                    assert kinds, (path, status)
                    assert values == {error.slug: error.to_problem() for error in kinds}
    assert shown == {error.slug for error in PROBLEMS}


@pytest.mark.parametrize("error", PROBLEMS, ids=lambda error: str(error.slug))
def test_an_example_problem_reads_back_as_its_error(error: SteppoError) -> None:
    problem = wire.Problem.model_validate(error.to_problem())
    again = error_from_problem(problem.model_dump())
    assert (type(again), again.detail, again.members) == (type(error), error.detail, error.members)


def test_no_two_examples_are_of_one_problem_type() -> None:
    assert len({error.slug for error in PROBLEMS}) == len(PROBLEMS)
