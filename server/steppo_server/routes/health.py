"""Operations: whether the server works, whether it should get work, and its numbers."""

from importlib.metadata import version

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from steppo_env.wire import Health
from steppo_server.auth import KeyScope, caller_of
from steppo_server.documented import problems
from steppo_server.metrics import Metrics
from steppo_server.readiness import Readiness
from steppo_server.sessions import SessionManager

__all__ = ["router"]

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def get_health(request: Request) -> Health:
    """Answer that the server works, and how full it is."""
    return _health(request.app.state.manager)


@router.get("/readyz", responses=problems(503))
async def get_readiness(request: Request) -> Health:
    """Answer whether new sessions should come here: there is room, and the journal takes entries."""
    readiness: Readiness = request.app.state.readiness
    await readiness.check()
    return _health(request.app.state.manager)


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Numbers", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **problems(403),
    },
)
async def get_metrics(request: Request) -> Response:
    """Return the server's numbers for Prometheus."""
    caller_of(request, KeyScope.ADMIN)
    metrics: Metrics = request.app.state.metrics
    text, media_type = metrics.text(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": media_type})


def _health(manager: SessionManager) -> Health:
    return Health(
        status="ok",
        version=version("steppo-env"),
        num_sessions=manager.num_sessions,
        max_sessions=manager.settings.max_sessions,
    )
