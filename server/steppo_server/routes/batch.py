"""Many sessions in one request; one item's failure never fails the others."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from steppo_env.errors import SteppoError
from steppo_env.wire import (
    BatchSessions,
    BatchSteps,
    CreateSession,
    SessionResults,
    StepItem,
    StepResults,
)
from steppo_server.auth import KeyScope, caller_of
from steppo_server.body import read_body
from steppo_server.direct import Endpoint
from steppo_server.documented import body_schema, problems
from steppo_server.problems import log_failure, problem_bytes
from steppo_server.routes.sessions import json_bytes
from steppo_server.sessions import SessionManager

__all__ = ["DIRECT", "create_all", "router", "step_all"]

router = APIRouter(prefix="/v1/batch", tags=["batches"])

ItemT = TypeVar("ItemT")

logger = logging.getLogger("steppo.server")


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

    async def create(item: CreateSession) -> bytes:
        return b'{"status":201,"session":' + await manager.create(owner, item) + b"}"

    lanes = [[(place, item)] for place, item in enumerate(batch.sessions)]
    return await _results(lanes, create, len(batch.sessions))


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

    async def step(item: StepItem) -> bytes:
        return b'{"status":200,"step":' + await manager.step(owner, item.session_id, item) + b"}"

    lanes: dict[Hashable, list[tuple[int, StepItem]]] = {}
    for place, item in enumerate(batch.steps):
        lanes.setdefault(item.session_id, []).append((place, item))
    return await _results(list(lanes.values()), step, len(batch.steps))


def _failed(error: SteppoError) -> bytes:
    return problem_bytes({"status": error.status, "problem": error.to_problem()})


async def _results(
    lanes: Sequence[Sequence[tuple[int, ItemT]]],
    work: Callable[[ItemT], Awaitable[bytes]],
    num_items: int,
) -> bytes:
    """Run the lanes side by side, each in order, and join the results in the request's order."""
    results = [b""] * num_items

    async def run(lane: Sequence[tuple[int, ItemT]]) -> None:
        for place, item in lane:
            try:
                results[place] = await work(item)
            except SteppoError as error:
                log_failure(f"batch item {place}", error)
                results[place] = _failed(error)
            except Exception:
                logger.exception("batch item %d", place)
                results[place] = _failed(SteppoError("the server failed; its log says why"))

    # Not anyio's group: starting a task there costs as much as a whole step.
    async with asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(run(lane))
    return b'{"results":[' + b",".join(results) + b"]}"


DIRECT: Mapping[str, Endpoint] = {
    "/v1/batch/steps": take_steps,
    "/v1/batch/sessions": create_sessions,
}
"""The endpoints that have to be fast, by path."""
