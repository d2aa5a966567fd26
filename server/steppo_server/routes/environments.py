"""What is served: environments and their tasks."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import JsonValue, TypeAdapter, ValidationError
from starlette.requests import Request

from steppo_env.errors import InvalidInput
from steppo_env.tools import explain
from steppo_env.wire import EnvDetail, EnvList, JsonObject, TaskPage
from steppo_server.auth import KeyScope, caller_of
from steppo_server.documented import problems
from steppo_server.sessions import SessionManager

__all__ = ["router"]

router = APIRouter(prefix="/v1/envs", tags=["environments"])

OPTIONS: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(JsonObject)
OptionsQuery = Annotated[
    str | None,
    Query(max_length=10_000, description="The options sessions will have, as a JSON object."),
]


@router.get("")
async def list_environments(request: Request) -> EnvList:
    """List what is served, also what cannot be used here and why."""
    manager: SessionManager = request.app.state.manager
    caller_of(request, KeyScope.ACT)
    return await manager.environments()


# The path takes slashes: an id has one, and servers decode %2F before they match routes.
@router.get("/{env_id:path}/tasks", responses=problems(404, 422, 500, 501, 503, 504))
async def list_env_tasks(
    request: Request,
    env_id: str,
    split: str,
    cursor: Annotated[str | None, Query(max_length=32)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    options: OptionsQuery = None,
) -> TaskPage:
    """List the tasks of a split in order. Solutions are never shown."""
    manager: SessionManager = request.app.state.manager
    caller_of(request, KeyScope.ACT)
    return await manager.tasks(env_id, split, limit, cursor, _read_options(options))


@router.get("/{env_id:path}", responses=problems(404, 422, 500, 501, 503, 504))
async def get_environment(request: Request, env_id: str, options: OptionsQuery = None) -> EnvDetail:
    """Describe an environment: its splits, its options, and which of them callers can set."""
    manager: SessionManager = request.app.state.manager
    caller_of(request, KeyScope.ACT)
    return await manager.describe(env_id, _read_options(options))


def _read_options(text: str | None) -> dict[str, JsonValue]:
    if text is None:
        return {}
    try:
        return OPTIONS.validate_json(text)
    except ValidationError as error:
        raise InvalidInput(f"options is a JSON object: {explain(error)}") from None
