"""Environments behind the HTTP API."""

import json
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import stamina
from pydantic import BaseModel, ValidationError

from steppo_client.env_client import (
    EnvClient,
    ExpertAdvice,
    SessionStart,
    SessionState,
    StepTaken,
)
from steppo_env.errors import (
    CapacityExceeded,
    SessionExpired,
    SteppoError,
    TransportError,
    UnknownSession,
    error_from_problem,
)
from steppo_env.tools import explain
from steppo_env.wire import (
    ActionModel,
    CreateSession,
    EnvDetail,
    EnvList,
    EnvSummary,
    ExpertReply,
    Health,
    SessionReply,
    StepReply,
    StepRequest,
    TaskPage,
)

__all__ = ["HttpEnvClient"]

ModelT = TypeVar("ModelT", bound=BaseModel)

CONNECT_TIMEOUT_S = 10.0
NUM_ATTEMPTS = 4


class HttpEnvClient(EnvClient):
    """Speaks to a steppo server.

    A request whose reply was lost is sent again, at most four times in all: creations carry their
    session id and steps their index, so the server applies none of them twice.

    Args:
        base_url: Such as `http://127.0.0.1:8765`.
        timeout_s: For one attempt at one request.
        transport: Replaces the network, such as `httpx.ASGITransport(app)`.
        num_connections: Most connections at a time.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = 310.0,
        transport: httpx.AsyncBaseTransport | None = None,
        num_connections: int = 64,
    ) -> None:
        self.base_url = base_url
        self._open: set[str] = set()
        self._http = httpx.AsyncClient(
            base_url=base_url,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(
                max_connections=num_connections, max_keepalive_connections=num_connections
            ),
            transport=transport,
            headers={"Content-Type": "application/json"},
        )

    async def health(self) -> Health:
        """Return whether the server works, and how full it is."""
        return await self._get("/healthz", Health)

    async def environments(self) -> tuple[EnvSummary, ...]:
        return tuple((await self._get("/v1/envs", EnvList)).environments)

    async def describe(self, env_id: str) -> EnvDetail:
        return await self._get(f"/v1/envs/{quote(env_id, safe='')}", EnvDetail)

    async def tasks(
        self, env_id: str, split: str, *, cursor: str | None = None, limit: int = 1000
    ) -> TaskPage:
        parameters = {"split": split, "limit": str(limit)}
        if cursor is not None:
            parameters["cursor"] = cursor
        path = f"/v1/envs/{quote(env_id, safe='')}/tasks"
        return await self._get(path, TaskPage, parameters)

    async def create(self, start: SessionStart) -> SessionState:
        body = CreateSession(
            env_id=start.env_id,
            task_id=start.task_id,
            split=start.split,
            index=start.index,
            seed=start.seed,
            options=dict(start.options or {}),
            session_id=start.session_id,
            lease_s=start.lease_s,
        )
        reply = await self._post("/v1/sessions", body, SessionReply)
        self._open.add(reply.session_id)
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
        path = f"/v1/sessions/{quote(session_id, safe='')}/steps"
        body = StepRequest(step_index=step_index, action=action)
        reply = await self._post(path, body, StepReply)
        return StepTaken(reply.to_outcome(), reply.trace_key)

    async def expert(self, session_id: str) -> ExpertAdvice:
        path = f"/v1/sessions/{quote(session_id, safe='')}/expert"
        reply = await self._get(path, ExpertReply)
        return ExpertAdvice(reply.action, reply.distance)

    async def delete(self, session_id: str) -> None:
        self._open.discard(session_id)
        try:
            await self._send("DELETE", f"/v1/sessions/{quote(session_id, safe='')}")
        except (UnknownSession, SessionExpired):
            return

    async def close(self) -> None:
        """Close the sessions that are still open, and the connections."""
        try:
            for session_id in list(self._open):
                await self.delete(session_id)
        finally:
            await self._http.aclose()

    async def _get(
        self, path: str, model: type[ModelT], parameters: dict[str, str] | None = None
    ) -> ModelT:
        return _read(await self._send("GET", path, parameters=parameters), model)

    async def _post(self, path: str, body: BaseModel, model: type[ModelT]) -> ModelT:
        content = body.model_dump_json().encode()
        return _read(await self._send("POST", path, content=content), model)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        parameters: dict[str, str] | None = None,
    ) -> bytes:
        """Send a request that is safe to repeat, and repeat it while its reply gets lost."""
        async for attempt in stamina.retry_context(
            on=(TransportError, CapacityExceeded), attempts=NUM_ATTEMPTS, wait_max=5.0, timeout=None
        ):
            with attempt:
                return await self._send_once(method, path, content, parameters)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _send_once(
        self, method: str, path: str, content: bytes | None, parameters: dict[str, str] | None
    ) -> bytes:
        try:
            response = await self._http.request(method, path, content=content, params=parameters)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise TransportError(
                f"{method} {self.base_url}{path} failed: {reason}; is the server running?"
            ) from error
        if response.is_success:
            return response.content
        raise _error_of(response)


def _read(content: bytes, model: type[ModelT]) -> ModelT:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise SteppoError(
            f"the server's reply is not a {model.__name__}: {explain(error)}; are client and server "
            "of one version?"
        ) from error


def _error_of(response: httpx.Response) -> SteppoError:
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        problem: dict[str, Any] = json.loads(response.content)
        return error_from_problem(problem)
    return SteppoError(
        f"{response.request.method} {response.request.url} answered {response.status_code} without "
        f"a problem document: {response.text[:200]!r}; is this a steppo server?"
    )
