"""What goes past FastAPI is answered as FastAPI's own routes answer it, and is in the document."""

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from steppo_server.app import create_app
from steppo_server.direct import Direct
from steppo_server.routes import batch, sessions
from steppo_server.settings import ServerSettings
from tests.server.conftest import Serving

DIRECT = {**sessions.DIRECT, **batch.DIRECT}

pytestmark = pytest.mark.anyio


@pytest.fixture
def app() -> FastAPI:
    return create_app(settings=ServerSettings(journal="sqlite://"))


@pytest.mark.parametrize("path", DIRECT)
def test_it_is_in_the_document_with_the_same_endpoint(app: FastAPI, path: str) -> None:
    assert "post" in app.openapi()["paths"][path]
    documented = [
        route
        for module in (sessions, batch)
        for route in module.router.routes
        if isinstance(route, APIRoute) and route.path == path and route.methods == {"POST"}
    ]
    assert [route.endpoint for route in documented] == [DIRECT[path]]


async def test_it_tells_what_is_around_it_of_path_and_parameters() -> None:
    async def unreachable(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    seen: list[Scope] = []

    async def endpoint(request: object, session_id: str) -> object:
        seen.append({"session_id": session_id})

        async def response(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope)

        return response

    path = "/v1/sessions/{session_id}/steps"
    direct = Direct(unreachable, {path: endpoint})  # type: ignore[dict-item]
    scope: Scope = {"type": "http", "method": "POST", "path": "/v1/sessions/a b/steps"}
    await direct(scope, None, None)  # type: ignore[arg-type]
    assert seen[0] == {"session_id": "a b"}
    assert seen[1]["path_params"] == {"session_id": "a b"}
    assert seen[1]["route"].path == path


@pytest.mark.parametrize("path", [name.format(session_id="s") for name in DIRECT])
async def test_other_methods_are_refused_and_errors_are_problems(
    serving: Serving, path: str
) -> None:
    async with serving() as http:
        assert (await http.put(path)).status_code == 405
        reply = await http.post(path, content=b"[")
        assert reply.status_code == 400
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json()["instance"] == path
        assert "x-request-id" in reply.headers
