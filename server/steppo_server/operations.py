"""What callers can ask for over the stream: each operation means what its HTTP call means."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from steppo_env.stream_wire import StreamRequest
from steppo_server.auth import Caller, KeyScope
from steppo_server.families import create_group, fork_session
from steppo_server.routes.batch import create_all, step_all
from steppo_server.routes.leases import renew_all
from steppo_server.sessions import SessionManager

__all__ = ["OPERATIONS", "Operation", "perform"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table.

    Attributes:
        run: Takes the manager, the owner and the frame, one of the classes of `StreamRequest`, and
            returns the reply's body as JSON.
        status: Of the reply when that succeeds.
        scope: What the caller's key must allow.
    """

    run: Callable[[SessionManager, str, Any], Awaitable[bytes]]
    status: int = 200
    scope: KeyScope = KeyScope.ACT


async def _environments(manager: SessionManager, owner: str, frame: Any) -> bytes:
    return (await manager.environments()).model_dump_json().encode()


async def _describe(manager: SessionManager, owner: str, frame: Any) -> bytes:
    detail = await manager.describe(frame.body.env_id, frame.body.options)
    return detail.model_dump_json().encode()


async def _tasks(manager: SessionManager, owner: str, frame: Any) -> bytes:
    body = frame.body
    page = await manager.tasks(body.env_id, body.split, body.limit, body.cursor, body.options)
    return page.model_dump_json().encode()


async def _delete(manager: SessionManager, owner: str, frame: Any) -> bytes:
    await manager.delete(owner, frame.session_id)
    return b"null"


async def _expert(manager: SessionManager, owner: str, frame: Any) -> bytes:
    return (await manager.expert(owner, frame.session_id)).model_dump_json().encode()


async def _leases(manager: SessionManager, owner: str, frame: Any) -> bytes:
    return (await renew_all(manager, owner, frame.body)).model_dump_json().encode()


OPERATIONS = {
    "environments": Operation(_environments),
    "describe": Operation(_describe),
    "tasks": Operation(_tasks),
    "create": Operation(lambda manager, owner, it: manager.create(owner, it.body), 201),
    "sessions": Operation(lambda manager, owner, it: create_all(manager, owner, it.body)),
    "group": Operation(lambda manager, owner, it: create_group(manager, owner, it.body), 201),
    "step": Operation(lambda manager, owner, it: manager.step(owner, it.session_id, it.body)),
    "steps": Operation(lambda manager, owner, it: step_all(manager, owner, it.body)),
    "get": Operation(lambda manager, owner, it: manager.get(owner, it.session_id)),
    "delete": Operation(_delete, 204),
    "expert": Operation(_expert, scope=KeyScope.EXPERT),
    "fork": Operation(
        lambda manager, owner, it: fork_session(manager, owner, it.session_id, it.body), 201
    ),
    "leases": Operation(_leases),
}
"""By the `op` of a frame."""


async def perform(
    manager: SessionManager, caller: Caller, request: StreamRequest
) -> tuple[int, bytes]:
    """Do what a frame asks for; return the status and the body of its reply.

    Raises:
        Forbidden: The caller's key has not the scope.
        SteppoError: As the operation says.
    """
    frame = request.root
    operation = OPERATIONS[frame.op]
    caller.require(operation.scope)
    return operation.status, await operation.run(manager, caller.owner, frame)
