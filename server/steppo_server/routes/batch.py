"""Many sessions in one request; one item's failure never fails the others."""

import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeVar

import anyio
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
from steppo_server.documented import body_schema, problems
from steppo_server.problems import log_failure, problem_bytes
from steppo_server.routes.sessions import json_bytes
from steppo_server.sessions import SessionManager

__all__ = ["router"]

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
    batch = await read_body(request, BatchSessions)

    async def create(item: CreateSession) -> bytes:
        return b'{"status":201,"session":' + await manager.create(owner, item) + b"}"

    lanes = [[(place, item)] for place, item in enumerate(batch.sessions)]
    return json_bytes(await _results(lanes, create, len(batch.sessions)))


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
    batch = await read_body(request, BatchSteps)

    async def step(item: StepItem) -> bytes:
        return b'{"status":200,"step":' + await manager.step(owner, item.session_id, item) + b"}"

    lanes: dict[Hashable, list[tuple[int, StepItem]]] = {}
    for place, item in enumerate(batch.steps):
        lanes.setdefault(item.session_id, []).append((place, item))
    return json_bytes(await _results(list(lanes.values()), step, len(batch.steps)))


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

    async with anyio.create_task_group() as group:
        for lane in lanes:
            group.start_soon(run, lane)
    return b'{"results":[' + b",".join(results) + b"]}"
