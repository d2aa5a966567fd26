"""One session at a time: create, step, look, fork, close, ask the expert; and groups of them."""

from collections.abc import Mapping

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from steppo_env.wire import (
    CreateGroup,
    CreateSession,
    ExpertReply,
    ForkReply,
    ForkRequest,
    GroupReply,
    SessionReply,
    StepReply,
    StepRequest,
)
from steppo_server.auth import KeyScope, caller_of
from steppo_server.body import read_body
from steppo_server.direct import Endpoint
from steppo_server.documented import body_schema, problems
from steppo_server.families import create_group, fork_session
from steppo_server.sessions import SessionManager

__all__ = ["DIRECT", "json_bytes", "router"]

router = APIRouter(prefix="/v1", tags=["sessions"])


def json_bytes(body: bytes, status: int = 200) -> Response:
    """Return a response whose body is JSON already."""
    return Response(body, status, media_type="application/json")


@router.post(
    "/sessions",
    status_code=201,
    response_model=SessionReply,
    responses=problems(400, 404, 409, 410, 413, 422, 429, 500, 501, 503, 504),
    openapi_extra=body_schema(CreateSession),
)
async def create_session(request: Request) -> Response:
    """Begin an episode. With a client-chosen id the same request again gets the same reply."""
    manager: SessionManager = request.app.state.manager
    owner = caller_of(request, KeyScope.ACT).owner
    return json_bytes(await manager.create(owner, await read_body(request, CreateSession)), 201)


@router.post(
    "/groups",
    status_code=201,
    response_model=GroupReply,
    responses=problems(400, 404, 409, 410, 413, 422, 429, 500, 501, 503, 504),
    openapi_extra=body_schema(CreateGroup),
)
async def create_session_group(request: Request) -> Response:
    """Begin several episodes of one task and one seed, proved equal by their trace keys."""
    manager: SessionManager = request.app.state.manager
    owner = caller_of(request, KeyScope.ACT).owner
    body = await read_body(request, CreateGroup)
    return json_bytes(await create_group(manager, owner, body), 201)


@router.post(
    "/sessions/{session_id}/steps",
    response_model=StepReply,
    responses=problems(400, 404, 409, 410, 413, 422, 500, 503, 504),
    openapi_extra=body_schema(StepRequest),
)
async def step_session(request: Request, session_id: str) -> Response:
    """Take one step. The same step_index with the same action again gets the same reply."""
    manager: SessionManager = request.app.state.manager
    owner = caller_of(request, KeyScope.ACT).owner
    body = await read_body(request, StepRequest)
    return json_bytes(await manager.step(owner, session_id, body))


@router.post(
    "/sessions/{session_id}/forks",
    status_code=201,
    response_model=ForkReply,
    responses=problems(400, 404, 409, 410, 413, 422, 429, 500, 503, 504),
    openapi_extra=body_schema(ForkRequest),
)
async def fork_session_at(request: Request, session_id: str) -> Response:
    """Begin episodes that share the past of this one, up to any of its steps."""
    manager: SessionManager = request.app.state.manager
    owner = caller_of(request, KeyScope.ACT).owner
    body = await read_body(request, ForkRequest)
    return json_bytes(await fork_session(manager, owner, session_id, body), 201)


@router.get(
    "/sessions/{session_id}",
    response_model=SessionReply,
    responses=problems(404, 409, 410, 500, 503, 504),
)
async def get_session(request: Request, session_id: str) -> Response:
    """Return the current state."""
    manager: SessionManager = request.app.state.manager
    owner = caller_of(request, KeyScope.ACT).owner
    return json_bytes(await manager.get(owner, session_id))


@router.delete("/sessions/{session_id}", status_code=204, responses=problems(404, 410))
async def delete_session(request: Request, session_id: str) -> Response:
    """Close the session and free what it holds; its id is free again."""
    manager: SessionManager = request.app.state.manager
    await manager.delete(caller_of(request, KeyScope.ACT).owner, session_id)
    return Response(status_code=204)


@router.get("/sessions/{session_id}/expert", responses=problems(403, 404, 409, 410, 500, 503, 504))
async def get_expert(request: Request, session_id: str) -> ExpertReply:
    """Return the next expert action and the distance to the goal in expert steps."""
    manager: SessionManager = request.app.state.manager
    return await manager.expert(caller_of(request, KeyScope.EXPERT).owner, session_id)


DIRECT: Mapping[str, Endpoint] = {
    "/v1/sessions/{session_id}/steps": step_session,
    "/v1/sessions": create_session,
}
"""The endpoints that have to be fast, by path."""
