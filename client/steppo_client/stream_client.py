"""Environments behind a server's stream: one socket for all sessions."""

import json
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
from pydantic import BaseModel, JsonValue, ValidationError

from steppo_client.remote_client import RemoteEnvClient, document, request_of
from steppo_client.retries import repeated
from steppo_client.stream_connection import StreamConnection, open_connection
from steppo_env.errors import InvalidInput, SteppoError, TransportError
from steppo_env.stream_wire import DescribeEnvironment, ListTasks
from steppo_env.tools import explain
from steppo_env.wire import (
    CreateSession,
    EnvDetail,
    EnvList,
    EnvSummary,
    ExpertReply,
    LeaseRequest,
    LeaseResults,
    SessionReply,
    StepItem,
    StepReply,
    TaskPage,
)
from steppo_services.urls import check_url

__all__ = ["StreamEnvClient"]

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(slots=True)
class _Opening:
    """A connection that is being made: one attempt for everybody who waits for it."""

    is_done: anyio.Event = field(default_factory=anyio.Event)
    error: Exception | None = None


class StreamEnvClient(RemoteEnvClient):
    """Speaks to a steppo server over one socket; used inside `async with`.

    Each step is answered when it is done, whatever else is under way, and costs the server less than a
    request of its own. When the connection is lost, requests without a reply go out again over a new
    one, at most four times in all: creations carry their session id and steps their index, so the
    server applies none of them twice.

    Args:
        base_url: Such as `ws://127.0.0.1:8765`.
        timeout_s: For one attempt at one request; no attempt begins later than this after the first.
        key: Sent as a bearer token; None where the server asks nobody for a key.

    Raises:
        InvalidInput: `base_url` is not a ws or wss URL.
    """

    def __init__(self, base_url: str, *, timeout_s: float = 310.0, key: str | None = None) -> None:
        check_url(base_url, "a server's stream", "ws://127.0.0.1:8765", schemes=("ws", "wss"))
        super().__init__()
        self.base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._key = key
        self._connection: StreamConnection | None = None
        self._opening: _Opening | None = None

    async def environments(self) -> tuple[EnvSummary, ...]:
        return tuple((await self._ask('"op":"environments"}', EnvList)).environments)

    async def describe(
        self, env_id: str, options: Mapping[str, JsonValue] | None = None
    ) -> EnvDetail:
        body = request_of(DescribeEnvironment, env_id=env_id, options=dict(options or {}))
        return await self._ask(_frame("describe", body), EnvDetail)

    async def tasks(
        self,
        env_id: str,
        split: str,
        *,
        cursor: str | None = None,
        limit: int = 1000,
        options: Mapping[str, JsonValue] | None = None,
    ) -> TaskPage:
        body = request_of(
            ListTasks,
            env_id=env_id,
            split=split,
            cursor=cursor,
            limit=limit,
            options=dict(options or {}),
        )
        return await self._ask(_frame("tasks", body), TaskPage)

    async def _create(self, request: CreateSession) -> SessionReply:
        return await self._ask(_frame("create", request), SessionReply)

    async def _step(self, request: StepItem) -> StepReply:
        body = document(request, without={"session_id"})
        return await self._ask(
            f'"op":"step","session_id":"{request.session_id}","body":{body}}}', StepReply
        )

    async def _expert(self, session_id: str) -> ExpertReply:
        return await self._ask(_of_session("expert", session_id), ExpertReply)

    async def _delete(self, session_id: str) -> None:
        await self._exchange(_of_session("delete", session_id))

    async def _renew(self, request: LeaseRequest) -> LeaseResults:
        return await self._ask(_frame("leases", request), LeaseResults)

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _ask(self, request: str, model: type[ModelT]) -> ModelT:
        reply = await self._exchange(request)
        try:
            return model.model_validate(reply)
        except ValidationError as error:
            raise TransportError(
                f"a reply of {self.base_url} is not a {model.__name__}: {explain(error)}; are client "
                "and server of one version?",
                http_status=200,
            ) from error

    async def _exchange(self, request: str) -> JsonValue:
        """Send a request that is safe to repeat, and repeat it while its reply gets lost."""

        async def attempt() -> JsonValue:
            connection = self._connection
            if connection is None or not connection.is_open:
                connection = await self._connected()
            return await connection.ask(request, self._timeout_s)

        return await repeated(attempt, self._timeout_s)

    async def _connected(self) -> StreamConnection:
        """Return the connection, after making a new one where there is none."""
        if self._tasks is None:
            raise InvalidInput(
                "a StreamEnvClient is used inside `async with`, which owns its socket"
            )
        opening = self._opening
        if opening is None:
            opening = self._opening = _Opening()
            self._tasks.start_soon(self._run_connection, opening)
        await opening.is_done.wait()
        if opening.error is not None:
            raise copy(opening.error)  # everybody an own one, or they would share one traceback
        assert self._connection is not None
        return self._connection

    async def _run_connection(self, opening: _Opening) -> None:
        opening.error = TransportError("the client was closed")
        try:
            self._connection = await open_connection(f"{self.base_url}/v1/stream", self._key)
            opening.error = None
        except SteppoError as error:
            opening.error = error
            return
        finally:
            self._opening = None
            opening.is_done.set()
        await self._connection.run()


def _frame(op: str, body: BaseModel) -> str:
    """Return the members of a frame after its request id."""
    return f'"op":"{op}","body":{document(body)}}}'


def _of_session(op: str, session_id: str) -> str:
    return f'"op":"{op}","session_id":{json.dumps(session_id)}}}'
