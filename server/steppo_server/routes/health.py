"""Whether the server works."""

from importlib.metadata import version

from fastapi import APIRouter
from starlette.requests import Request

from steppo_env.wire import Health
from steppo_server.sessions import SessionManager

__all__ = ["router"]

router = APIRouter(tags=["operations"])


@router.get("/healthz")
@router.get("/readyz")
async def get_health(request: Request) -> Health:
    """Answer that the server works, and how full it is."""
    manager: SessionManager = request.app.state.manager
    return Health(
        status="ok",
        version=version("steppo-env"),
        num_sessions=manager.num_sessions,
        max_sessions=manager.settings.max_sessions,
    )
