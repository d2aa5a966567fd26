"""What the clients of a server share, whatever carries their requests."""

import json
import logging
import re
from abc import abstractmethod
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Self, TypeVar

import anyio
from anyio.abc import TaskGroup, TaskStatus
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from steppo_client.env_client import (
    CLOSE_S,
    EnvClient,
    ExpertAdvice,
    SessionStart,
    SessionState,
    StepTaken,
)
from steppo_client.leases import LeaseKeeper
from steppo_env.errors import (
    InvalidInput,
    SessionExpired,
    SteppoError,
    TransportError,
    UnknownSession,
)
from steppo_env.tools import explain
from steppo_env.wire import (
    ActionModel,
    CreateSession,
    ExpertReply,
    LeaseRequest,
    LeaseResults,
    SessionReply,
    StepItem,
    StepReply,
)

__all__ = ["LEASE_S", "RemoteEnvClient", "document", "request_of"]

ModelT = TypeVar("ModelT", bound=BaseModel)

LEASE_S = 300.0
"""Lease of a session that does not ask for another, seconds: renewed every third of it."""

logger = logging.getLogger("steppo.client")


class RemoteEnvClient(EnvClient):
    """A client of a server.

    Inside `async with` it renews the leases of its sessions, so that none is freed while a policy
    thinks; a session whose client has died is freed when its lease runs out.
    """

    def __init__(self) -> None:
        self._open: dict[str, str] = {}
        """The environment of each session that may exist over there."""
        self._leases = LeaseKeeper(self._renew)
        self._tasks: TaskGroup | None = None
        self._is_left = anyio.Event()
        self._stack = AsyncExitStack()

    @abstractmethod
    async def _create(self, request: CreateSession) -> SessionReply:
        """Send a creation."""

    @abstractmethod
    async def _step(self, request: StepItem) -> StepReply:
        """Send a step."""

    @abstractmethod
    async def _expert(self, session_id: str) -> ExpertReply:
        """Ask for the expert's advice."""

    @abstractmethod
    async def _delete(self, session_id: str) -> None:
        """Close a session."""

    @abstractmethod
    async def _renew(self, request: LeaseRequest) -> LeaseResults:
        """Renew leases."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """Close the connections."""

    async def create(self, start: SessionStart) -> SessionState:
        lease_s = start.lease_s
        if lease_s is None and self._tasks is not None:
            lease_s = LEASE_S
        request = request_of(
            CreateSession,
            env_id=start.env_id,
            task_id=start.task_id,
            split=start.split,
            index=start.index,
            seed=start.seed,
            options=dict(start.options or {}),
            session_id=start.session_id,
            lease_s=lease_s,
        )
        is_repeated = start.session_id in self._open
        self._open.setdefault(start.session_id, start.env_id)
        try:
            reply = await self._create(request)
        except TransportError:
            raise  # it may exist over there
        except SteppoError:
            if not is_repeated:
                self._forget(start.session_id)
            raise
        if lease_s is not None and start.session_id in self._open:
            self._leases.keep(start.session_id, lease_s)
        return SessionState(
            reply.session_id,
            reply.env_id,
            reply.task_id,
            reply.split,
            reply.labels,
            reply.seed,
            reply.observation.to_observation(reply.state_key),
            reply.trace_key,
        )

    async def step(self, session_id: str, step_index: int, action: ActionModel) -> StepTaken:
        request = request_of(StepItem, session_id=session_id, step_index=step_index, action=action)
        reply = await self._step(request)
        return StepTaken(reply.to_outcome(), reply.trace_key)

    async def expert(self, session_id: str) -> ExpertAdvice:
        reply = await self._expert(session_id)
        return ExpertAdvice(reply.action, reply.distance)

    async def delete(self, session_id: str) -> None:
        self._leases.drop(session_id)
        with suppress(UnknownSession, SessionExpired):
            await self._delete(session_id)
        self._forget(session_id)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            owner = await stack.enter_async_context(anyio.create_task_group())
            self._is_left = anyio.Event()
            self._tasks = await owner.start(self._run_tasks)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.close()
        finally:
            self._tasks = None
            self._is_left.set()
            # Without the caller's error, which would come out as a group of errors.
            await self._stack.aclose()

    async def _run_tasks(self, *, task_status: TaskStatus[TaskGroup]) -> None:
        """Own what runs beside the requests, until the client is left."""
        # Shielded: also a caller who was cancelled closes its sessions, which takes these tasks.
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._leases.run)
                task_status.started(tasks)
                await self._is_left.wait()
                tasks.cancel_scope.cancel()

    async def close(self) -> None:
        """Close the sessions that are still open, and the connections.

        Also when the caller has been cancelled. A session that cannot be closed is logged; its lease
        frees it.
        """
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(CLOSE_S):
                async with anyio.create_task_group() as group:
                    for session_id in list(self._open):
                        group.start_soon(self._let_go, session_id)
            await self._disconnect()

    async def _let_go(self, session_id: str) -> None:
        try:
            await self.delete(session_id)
        except SteppoError as error:
            logger.warning("session %s was not closed: %s", session_id, error)

    def _forget(self, session_id: str) -> None:
        self._open.pop(session_id, None)
        self._leases.drop(session_id)


def request_of(model: type[ModelT], **values: object) -> ModelT:
    """Return a request's document.

    Raises:
        InvalidInput: A value is not what the server takes.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidInput(explain(error)) from None


def document(body: BaseModel, *, without: set[str] | None = None) -> str:
    """Return a request as JSON, but for the members that stand elsewhere."""
    try:
        return body.model_dump_json(exclude=without)
    except PydanticSerializationError:
        # A lone surrogate, which has no UTF-8 form: the parser would replace it by U+FFFD as well.
        text = json.dumps(body.model_dump(exclude=without), ensure_ascii=False)
        return re.sub("[\ud800-\udfff]", "\ufffd", text)
