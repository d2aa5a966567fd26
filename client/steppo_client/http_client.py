"""Environments behind the HTTP API."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Self, TypeVar
from urllib.parse import quote

import httpx
from httpx_aiohttp import HttpxAiohttpClient
from pydantic import BaseModel, JsonValue, ValidationError

from steppo_client.coalescing import Coalescer
from steppo_client.remote_client import RemoteEnvClient, document
from steppo_client.retries import repeated
from steppo_env.errors import (
    InvalidInput,
    PayloadTooLarge,
    SteppoError,
    TransportError,
    error_from_problem,
)
from steppo_env.tools import explain
from steppo_env.wire import (
    CreateSession,
    EnvDetail,
    EnvList,
    EnvSummary,
    ExpertReply,
    Health,
    LeaseRequest,
    LeaseResults,
    Problem,
    SessionReply,
    SessionResults,
    StepItem,
    StepReply,
    StepResults,
    TaskPage,
)
from steppo_services.urls import check_url

__all__ = ["HttpEnvClient"]

ModelT = TypeVar("ModelT", bound=BaseModel)

CONNECT_TIMEOUT_S = 10.0
MAX_IDLE = 8
"""Connections kept open for joined requests, which are few: each costs every request a look at it."""
MAX_JOINED_STEPS = 64
"""Most steps in one request: of more, one would not cost the server much less."""
MAX_JOINED_CREATIONS = 16
"""Most creations in one request, which take long and are answered together."""


class HttpEnvClient(RemoteEnvClient):
    """Speaks to a steppo server.

    A request whose reply was lost is sent again, at most four times in all: creations carry their
    session id and steps their index, so the server applies none of them twice.

    Inside `async with`, steps that are taken within about a millisecond in sessions of one environment
    go out as one request, and so do creations. That costs client and server a fraction of what single
    requests do; but the replies come together, when the slowest is done.

    Args:
        base_url: Such as `http://127.0.0.1:8765`.
        timeout_s: For one attempt at one request; no attempt begins later than this after the first.
        transport: Replaces the network, such as `httpx.ASGITransport(app)`.
        num_connections: Most connections at a time.
        key: Sent as a bearer token; None where the server asks nobody for a key.
        coalesce: Whether requests are joined.

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
        key: str | None = None,
        coalesce: bool = True,
    ) -> None:
        check_url(base_url, "a server", "http://127.0.0.1:8765")
        super().__init__()
        self.base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._coalesces = coalesce
        self._steps: Coalescer[StepReply] | None = None
        self._creations: Coalescer[SessionReply] | None = None
        # It costs a seventh of the CPU that httpx's own transport costs with 64 requests in flight.
        self._http = HttpxAiohttpClient(
            base_url=self.base_url,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(
                max_connections=num_connections,
                max_keepalive_connections=MAX_IDLE if coalesce else num_connections,
            ),
            transport=transport,
            headers={
                "Content-Type": "application/json",
                **({"Authorization": f"Bearer {key}"} if key is not None else {}),
            },
        )

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        if self._coalesces and self._tasks is not None:
            self._steps = Coalescer(self._tasks, self._send_steps, MAX_JOINED_STEPS)
            self._creations = Coalescer(self._tasks, self._send_creations, MAX_JOINED_CREATIONS)
        return self

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

    async def _create(self, request: CreateSession) -> SessionReply:
        body = document(request).encode()
        if self._creations is None:
            return await self._post("/v1/sessions", body, SessionReply)
        return await repeated(
            partial(self._creations.submit, request.env_id, body), self._timeout_s
        )

    async def _step(self, request: StepItem) -> StepReply:
        if self._steps is None:
            body = document(request, without={"session_id"}).encode()
            return await self._post(f"{_path_of(request.session_id)}/steps", body, StepReply)
        lane = self._open.get(request.session_id, "")
        item = document(request).encode()
        return await repeated(partial(self._steps.submit, lane, item), self._timeout_s)

    async def _expert(self, session_id: str) -> ExpertReply:
        return await self._get(f"{_path_of(session_id)}/expert", ExpertReply)

    async def _delete(self, session_id: str) -> None:
        await self._send("DELETE", _path_of(session_id))

    async def _renew(self, request: LeaseRequest) -> LeaseResults:
        return await self._post("/v1/leases", document(request).encode(), LeaseResults)

    async def _disconnect(self) -> None:
        self._steps = self._creations = None
        await self._http.aclose()

    async def _send_steps(self, items: Sequence[bytes]) -> list[StepReply | Exception]:
        async def send(joined: bytes) -> list[StepReply | Exception]:
            path = "/v1/batch/steps"
            content = await self._send_once("POST", path, b'{"steps":[%b]}' % joined)
            results = self._read(path, content, StepResults).results
            return [_result(item.step, item.problem) for item in results]

        return await _joined(items, send)

    async def _send_creations(self, items: Sequence[bytes]) -> list[SessionReply | Exception]:
        async def send(joined: bytes) -> list[SessionReply | Exception]:
            path = "/v1/batch/sessions"
            content = await self._send_once("POST", path, b'{"sessions":[%b]}' % joined)
            results = self._read(path, content, SessionResults).results
            return [_result(item.session, item.problem) for item in results]

        return await _joined(items, send)

    async def _get(
        self, path: str, model: type[ModelT], parameters: dict[str, str] | None = None
    ) -> ModelT:
        return self._read(path, await self._send("GET", path, parameters=parameters), model)

    async def _post(self, path: str, body: bytes, model: type[ModelT]) -> ModelT:
        return self._read(path, await self._send("POST", path, content=body), model)

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
        send = partial(self._send_once, method, path, content, parameters)
        return await repeated(send, self._timeout_s)

    async def _send_once(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        parameters: dict[str, str] | None = None,
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


async def _joined(
    items: Sequence[bytes], send: Callable[[bytes], Awaitable[list[ModelT | Exception]]]
) -> list[ModelT | Exception]:
    """Send items as one request, or one by one where they are refused only because they are joined."""
    try:
        results = await send(b",".join(items))
    except (InvalidInput, PayloadTooLarge) as error:
        if len(items) == 1:
            return [error]
        # All together are too long, or the server does not take one of them: not the others' fault.
        return [(await _joined([item], send))[0] for item in items]
    if len(results) != len(items):
        raise TransportError(
            f"{len(items)} items got {len(results)} results; are client and server of one version?",
            http_status=200,
        )
    return results


def _result(reply: ModelT | None, problem: Problem | None) -> ModelT | Exception:
    if reply is not None:
        return reply
    return error_from_problem({} if problem is None else problem.model_dump())


def _path_of(session_id: str) -> str:
    return f"/v1/sessions/{quote(session_id, safe='')}"


def _options_parameter(options: Mapping[str, JsonValue] | None) -> dict[str, str]:
    return {"options": json.dumps(dict(options))} if options else {}


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
