"""Leases: what keeps sessions alive while a model thinks."""

from fastapi import APIRouter
from starlette.requests import Request

from steppo_env.errors import SteppoError
from steppo_env.wire import LeaseRequest, LeaseResult, LeaseResults, Problem
from steppo_server.auth import KeyScope, caller_of
from steppo_server.body import read_body
from steppo_server.documented import body_schema, problems
from steppo_server.sessions import SessionManager

__all__ = ["renew_all", "router"]

router = APIRouter(prefix="/v1/leases", tags=["sessions"])


@router.post("", responses=problems(400, 413, 422), openapi_extra=body_schema(LeaseRequest))
async def renew_leases(request: Request) -> LeaseResults:
    """Start the leases of many sessions anew; with `revive`, also those that have run out."""
    manager: SessionManager = request.app.state.manager
    owner = caller_of(request, KeyScope.ACT).owner
    return await renew_all(manager, owner, await read_body(request, LeaseRequest))


async def renew_all(manager: SessionManager, owner: str, wanted: LeaseRequest) -> LeaseResults:
    """Renew many leases; each has a result of its own."""
    results: list[LeaseResult] = []
    for session_id in wanted.session_ids:
        try:
            until = await manager.renew(owner, session_id, is_revival=wanted.revive)
        except SteppoError as error:
            problem = Problem.model_validate(error.to_problem())
            results.append(LeaseResult(session_id=session_id, status=error.status, problem=problem))
        else:
            results.append(LeaseResult(session_id=session_id, status=200, lease_expires_at=until))
    return LeaseResults(results=results)
