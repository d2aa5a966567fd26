"""Environments behind the HTTP API."""

import json
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TypeVar
from urllib.parse import quote

import anyio
import httpx
import stamina
from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import PydanticSerializationError

from steppo_client.env_client import (
    CLOSE_S,
    EnvClient,
    ExpertAdvice,
    SessionStart,
    SessionState,
    StepTaken,
)
from steppo_services.urls import check_url
from steppo_env.errors import (
    CapacityExceeded,
    InvalidInput,
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
MAX_WAIT_S = 30.0
"""Longest pause before a request is sent again, whatever the server asks for."""

PASSING_STATUSES = frozenset({429, 502, 503, 504})
"""What a proxy answers while the server behind it is busy or away."""

logger = logging.getLogger("steppo.client")


class HttpEnvClient(EnvClient):
    """Speaks to a steppo server.

    A request whose reply was lost is sent again, at most four times in all: creations carry their
    session id and steps their index, so the server applies none of them twice.

    Args:
        base_url: Such as `http://127.0.0.1:8765`.
        timeout_s: For one attempt at one request; no attempt begins later than this after the first.
        transport: Replaces the network, such as `httpx.ASGITransport(app)`.
        num_connections: Most connections at a time.

    Raises:
        InvalidInput: `base_url` is not an http or https URL.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = 310.0,
        transport: httpx.AsyncBaseTransport | None = None,
        num_connections: int = 64,
    ) -> None:
        check_url(base_url, "a server", "http://127.0.0.1:8765")
        self.base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._open: set[str] = set()
        self._http = httpx.AsyncClient(
            base_url=self.base_url,
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

    async def describe(
        self, env_id: str, options: Mapping[str, JsonValue] | None = None
    ) -> EnvDetail:
        path = f"/v1/envs/{quote(env_id, safe='')}"
        return await self._get(path, EnvDetail, _options_parameter(options))

    async def tasks(
        self,
        env_id: str,
        split: str,
        *,
        cursor: str | None = None,
        limit: int = 1000,
        options: Mapping[str, JsonValue] | None = None,
    ) -> TaskPage:
        parameters = {"split": split, "limit": str(limit), **_options_parameter(options)}
        if cursor is not None:
            parameters["cursor"] = cursor
        path = f"/v1/envs/{quote(env_id, safe='')}/tasks"
        return await self._get(path, TaskPage, parameters)

    async def create(self, start: SessionStart) -> SessionState:
        body = _request(
            CreateSession,
            env_id=start.env_id,
            task_id=start.task_id,
            split=start.split,
            index=start.index,
            seed=start.seed,
            options=dict(start.options or {}),
            session_id=start.session_id,
            lease_s=start.lease_s,
        )
        is_repeated = start.session_id in self._open
        self._open.add(start.session_id)
        try:
            reply = await self._post("/v1/sessions", body, SessionReply)
        except TransportError:
            raise  # it may exist over there
        except SteppoError:
            if not is_repeated:
                self._open.discard(start.session_id)
            raise
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
        body = _request(StepRequest, step_index=step_index, action=action)
        reply = await self._post(f"{_path_of(session_id)}/steps", body, StepReply)
        return StepTaken(reply.to_outcome(), reply.trace_key)

    async def expert(self, session_id: str) -> ExpertAdvice:
        reply = await self._get(f"{_path_of(session_id)}/expert", ExpertReply)
        return ExpertAdvice(reply.action, reply.distance)

    async def delete(self, session_id: str) -> None:
        with suppress(UnknownSession, SessionExpired):
            await self._send("DELETE", _path_of(session_id))
        self._open.discard(session_id)

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
            await self._http.aclose()

    async def _let_go(self, session_id: str) -> None:
        try:
            await self.delete(session_id)
        except SteppoError as error:
            logger.warning("session %s was not closed: %s", session_id, error)

    async def _get(
        self, path: str, model: type[ModelT], parameters: dict[str, str] | None = None
    ) -> ModelT:
        return self._read(path, await self._send("GET", path, parameters=parameters), model)

    async def _post(self, path: str, body: BaseModel, model: type[ModelT]) -> ModelT:
        return self._read(path, await self._send("POST", path, content=_json(body)), model)

    def _read(self, path: str, content: bytes, model: type[ModelT]) -> ModelT:
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            raise TransportError(
                f"the reply of {self.base_url}{path} is not a {model.__name__}: {explain(error)}; "
                "are client and server of one version?",
                http_status=200,
            ) from error

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
            on=_may_repeat, attempts=NUM_ATTEMPTS, wait_max=5.0, timeout=self._timeout_s
        ):
            with attempt:
                return await self._send_once(method, path, content, parameters)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _send_once(
        self, method: str, path: str, content: bytes | None, parameters: dict[str, str] | None
    ) -> bytes:
        try:
            response = await self._http.request(method, path, content=content, params=parameters)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise TransportError(
                f"{method} {self.base_url}{path} failed: {reason}; is the server running?"
            ) from error
        if response.is_success:
            return response.content
        raise _error_of(response)


def _path_of(session_id: str) -> str:
    return f"/v1/sessions/{quote(session_id, safe='')}"


def _options_parameter(options: Mapping[str, JsonValue] | None) -> dict[str, str]:
    return {"options": json.dumps(dict(options))} if options else {}


def _request(model: type[ModelT], **values: object) -> ModelT:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidInput(explain(error)) from None


def _json(body: BaseModel) -> bytes:
    try:
        return body.model_dump_json().encode()
    except PydanticSerializationError:
        # A lone surrogate, which has no UTF-8 form: the parser would replace it by U+FFFD as well.
        text = json.dumps(body.model_dump(), ensure_ascii=False)
        return re.sub("[\ud800-\udfff]", "\ufffd", text).encode()


def _may_repeat(error: Exception) -> bool | float:
    """Return whether to send a request again, or after how many seconds."""
    if not isinstance(error, TransportError | CapacityExceeded):
        return False
    if error.members.get("http_status", 503) not in PASSING_STATUSES:
        return False  # whatever answered there is not the server
    wait_s = error.members.get("retry_after_s")
    return min(float(wait_s), MAX_WAIT_S) if isinstance(wait_s, int | float) else True


def _error_of(response: httpx.Response) -> SteppoError:
    """Return the error that a reply says, or that the reply itself is."""
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        try:
            problem = json.loads(response.content)
        except ValueError:
            problem = None
        if isinstance(problem, dict):
            return error_from_problem(problem)
    members: dict[str, JsonValue] = {"http_status": response.status_code}
    retry_after = response.headers.get("retry-after", "")
    if retry_after.isascii() and retry_after.isdigit():
        members["retry_after_s"] = int(retry_after)
    return TransportError(
        f"{response.request.method} {response.request.url} answered {response.status_code} without "
        f"a problem document: {response.text[:200]!r}; is this a steppo server?",
        **members,
    )
