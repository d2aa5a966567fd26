"""Many sessions in one request; one item's failure never fails the others."""

import asyncio
from collections.abc import Mapping, Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from steppo_env.wire import (
    BatchSessions,
    BatchSteps,
    CreateSession,
    SessionResults,
    StepResults,
)
from steppo_server.auth import KeyScope, caller_of
from steppo_server.body import read_body
from steppo_server.direct import Endpoint
from steppo_server.documented import body_schema, problems
from steppo_server.problems import problem_bytes, told_of
from steppo_server.routes.sessions import json_bytes
from steppo_server.sessions import SessionManager

__all__ = ["DIRECT", "create_all", "router", "step_all"]

router = APIRouter(prefix="/v1/batch", tags=["batches"])


@router.post(
    "/sessions",
    response_model=SessionResults,
    responses=problems(400, 413, 422),
    openapi_extra=body_schema(BatchSessions),
)
async def create_sessions(request: Request) -> Response:
    """Begin many episodes. Results stand in the order of the request."""
    manager: SessionManager = request.app.state.manager
    owner = caller_of(request, KeyScope.ACT).owner
    return json_bytes(await create_all(manager, owner, await read_body(request, BatchSessions)))


async def create_all(manager: SessionManager, owner: str, batch: BatchSessions) -> bytes:
    """Begin many episodes and return SessionResults."""

    answers: list[bytes | Exception] = [b""] * len(batch.sessions)

    async def create(place: int, item: CreateSession) -> None:
        try:
            answers[place] = await manager.create(owner, item)
        except Exception as error:  # noqa: BLE001 - it is the item's answer
            answers[place] = error

    # Not anyio's group: starting a task there costs as much as a whole step.
    async with asyncio.TaskGroup() as group:
        for place, item in enumerate(batch.sessions):
            group.create_task(create(place, item))
    return _joined(201, b"session", answers)


@router.post(
    "/steps",
    response_model=StepResults,
    responses=problems(400, 413, 422),
    openapi_extra=body_schema(BatchSteps),
)
async def take_steps(request: Request) -> Response:
    """Take steps in many sessions. Steps of one session are taken in the order given."""
    manager: SessionManager = request.app.state.manager
    owner = caller_of(request, KeyScope.ACT).owner
    return json_bytes(await step_all(manager, owner, await read_body(request, BatchSteps)))


async def step_all(manager: SessionManager, owner: str, batch: BatchSteps) -> bytes:
    """Take many steps and return StepResults."""

    answers = await manager.step_many(owner, batch.steps)
    return _joined(200, b"step", answers)


def _joined(status: int, name: bytes, answers: Sequence[bytes | Exception]) -> bytes:
    """Join what the items were answered, each as a member of this name or as a problem."""
    head = b'{"status":%d,"%b":' % (status, name)
    results = [
        head + answer + b"}" if isinstance(answer, bytes) else _failed(place, answer)
        for place, answer in enumerate(answers)
    ]
    return b'{"results":[' + b",".join(results) + b"]}"


def _failed(place: int, error: Exception) -> bytes:
    told = told_of(f"batch item {place}", error)
    return problem_bytes({"status": told.status, "problem": told.to_problem()})


DIRECT: Mapping[str, Endpoint] = {
    "/v1/batch/steps": take_steps,
    "/v1/batch/sessions": create_sessions,
}
"""The endpoints that have to be fast, by path."""
