import json
import logging
from typing import cast

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from steppo_env.errors import CapacityExceeded, DeadlineExceeded, EnvError, SteppoError, UnknownTask
from steppo_server.problems import install_handlers, problem_bytes, problem_response

pytestmark = pytest.mark.anyio

ERRORS: dict[str, Exception] = {
    "task": UnknownTask("there is no task x", hint="y"),
    "busy": CapacityExceeded("full", retry_after_s=2.4),
    "surrogate": EnvError("half: \ud800"),
    "late": DeadlineExceeded("late"),
    "bug": KeyError("/srv/secret/path"),
}


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    install_handlers(app)

    @app.get("/raise/{name}")
    async def fail(name: str) -> None:
        raise ERRORS[name]

    @app.get("/number")
    async def number(value: int) -> int:
        return value

    return app


async def ask(app: FastAPI, path: str, method: str = "GET") -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        return await client.request(method, path)


def problem_of(response: httpx.Response) -> dict[str, JsonValue]:
    assert response.headers["content-type"] == "application/problem+json"
    problem = cast(dict[str, JsonValue], json.loads(response.content))
    assert problem["status"] == response.status_code
    return problem


async def test_an_error_is_a_problem_with_its_members_and_where_it_happened(app: FastAPI) -> None:
    response = await ask(app, "/raise/task")
    assert problem_of(response) == {
        "type": "urn:steppo:problem:unknown-task",
        "title": "Unknown task",
        "status": 404,
        "detail": "there is no task x",
        "instance": "/raise/task",
        "hint": "y",
    }


async def test_want_of_room_says_when_to_try_again_and_is_logged_without_a_traceback(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "steppo.server"):
        response = await ask(app, "/raise/busy")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.records[0].exc_info is None


async def test_a_failure_of_the_server_is_logged_with_its_traceback(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "steppo.server"):
        await ask(app, "/raise/late")
        await ask(app, "/raise/task")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.records[0].exc_info


async def test_a_bug_is_a_problem_that_tells_nothing_of_the_inside(app: FastAPI) -> None:
    response = await ask(app, "/raise/bug")
    problem = problem_of(response)
    assert response.status_code == 500
    assert problem["type"] == "urn:steppo:problem:internal-error"
    assert "secret" not in response.text


async def test_text_that_is_no_utf8_does_not_break_the_answer(app: FastAPI) -> None:
    response = await ask(app, "/raise/surrogate")
    assert problem_of(response)["detail"] == "half: ?"


async def test_an_invalid_parameter_is_named_in_a_problem(app: FastAPI) -> None:
    problem = problem_of(await ask(app, "/number?value=x"))
    assert problem["type"] == "urn:steppo:problem:invalid-input"
    assert str(problem["detail"]).startswith("query.value: ")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("PUT", "/number", 405)]
)
async def test_an_unknown_route_or_method_is_a_problem(
    app: FastAPI, method: str, path: str, status: int
) -> None:
    response = await ask(app, path, method)
    assert problem_of(response)["type"] == "about:blank"
    assert response.status_code == status
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(("seconds", "header"), [(0.01, "1"), (1, "1"), (7.6, "8"), ("soon", None)])
def test_retry_after_is_whole_seconds_and_never_zero(
    seconds: JsonValue, header: str | None
) -> None:
    response = problem_response(CapacityExceeded("full", retry_after_s=seconds))
    assert response.headers.get("retry-after") == header


@given(st.text(st.characters()))
def test_whatever_text_a_problem_holds_it_is_json_in_utf8(text: str) -> None:
    read = json.loads(problem_bytes(SteppoError(text).to_problem()).decode())
    assert len(read["detail"]) == len(text)
