"""One session at a time: create, step, look, close, ask the expert."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from steppo_env.wire import CreateSession, ExpertReply, SessionReply, StepReply, StepRequest
from steppo_server.body import read_body
from steppo_server.documented import body_schema, problems
from steppo_server.sessions import SessionManager

__all__ = ["json_bytes", "router"]

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])


def json_bytes(body: bytes, status: int = 200) -> Response:
    """Return a response whose body is JSON already."""
    return Response(body, status, media_type="application/json")


@router.post(
    "",
    status_code=201,
    response_model=SessionReply,
    responses=problems(400, 404, 409, 413, 422, 500, 501, 503, 504),
    openapi_extra=body_schema(CreateSession),
)
async def create_session(request: Request) -> Response:
    """Begin an episode. With a client-chosen id the same request again gets the same reply."""
    manager: SessionManager = request.app.state.manager
    return json_bytes(await manager.create(await read_body(request, CreateSession)), 201)


@router.post(
    "/{session_id}/steps",
    response_model=StepReply,
    responses=problems(400, 404, 409, 410, 413, 422, 500, 503, 504),
    openapi_extra=body_schema(StepRequest),
)
async def step_session(request: Request, session_id: str) -> Response:
    """Take one step. The same step_index with the same action again gets the same reply."""
    manager: SessionManager = request.app.state.manager
    return json_bytes(await manager.step(session_id, await read_body(request, StepRequest)))


@router.get("/{session_id}", response_model=SessionReply, responses=problems(404, 410))
async def get_session(request: Request, session_id: str) -> Response:
    """Return the current state."""
    manager: SessionManager = request.app.state.manager
    return json_bytes(await manager.get(session_id))


@router.delete("/{session_id}", status_code=204, responses=problems(404, 410))
async def delete_session(request: Request, session_id: str) -> Response:
    """Close the session and free its memory."""
    manager: SessionManager = request.app.state.manager
    await manager.delete(session_id)
    return Response(status_code=204)


@router.get("/{session_id}/expert", responses=problems(404, 410, 500, 503, 504))
async def get_expert(request: Request, session_id: str) -> ExpertReply:
    """Return the next expert action and the distance to the goal in expert steps."""
    manager: SessionManager = request.app.state.manager
    return await manager.expert(session_id)
