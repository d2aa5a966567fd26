"""OpenEnv's routes, an application of their own under `/openenv/{env_name}`."""

import secrets
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Annotated, NamedTuple

import anyio
from fastapi import APIRouter, FastAPI, Query
from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from steppo_env.errors import (
    DeadlineExceeded,
    EpisodeNotStarted,
    InvalidInput,
    SessionExists,
    SteppoError,
    UnknownSession,
)
from steppo_env.keys import digest
from steppo_env.registry import plugin_version
from steppo_env.wire import CreateSession, SessionId, StepRequest
from steppo_server.auth import KeyScope, caller_of
from steppo_server.body import read_body
from steppo_server.documented import any_problem, body_schema
from steppo_server.openenv.documents import (
    Description,
    EpisodeStateModel,
    HealthModel,
    McpReply,
    ObservationReply,
    ResetRequest,
    SchemasModel,
    ShownModel,
    TextAction,
    TimedStepRequest,
)
from steppo_server.openenv.episodes import Chooser, new_id, observed, offered_name, state_of
from steppo_server.openenv.socket import serve_socket
from steppo_server.problems import install_handlers, log_failure, problem_response
from steppo_server.sessions import SessionManager

__all__ = ["mount_openenv"]

_SESSION_ID = TypeAdapter(SessionId)

router = APIRouter()


def mount_openenv(app: FastAPI) -> None:
    """Serve the OpenEnv protocol of every environment of the app.

    An application of its own, so that each environment has the `/openapi.json` that OpenEnv's
    validator reads; it shares the app's state, and the app's middleware stands before it.
    """
    openenv = FastAPI(
        title="steppo-env, OpenEnv protocol",
        version=version("steppo-env"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=any_problem(),
    )
    openenv.state = app.state
    openenv.state.openenv_chooser = Chooser()
    install_handlers(openenv)
    openenv.include_router(router)
    # The path takes slashes: an id has one, and servers decode %2F before they match routes.
    app.mount("/openenv/{env_name:path}", openenv)


class _Call(NamedTuple):
    """Who asks for what."""

    manager: SessionManager
    chooser: Chooser
    owner: str
    env_name: str

    async def creation(self, body: ResetRequest, session_id: str, seed: int) -> CreateSession:
        """Return what begins the session that a reset asks for."""
        return await self.chooser.creation(
            self.manager, self.env_name, body, session_id=session_id, seed=seed
        )


def _call(request: Request) -> _Call:
    manager: SessionManager = request.app.state.manager
    chooser: Chooser = request.app.state.openenv_chooser
    owner = caller_of(request, KeyScope.ACT).owner
    env_name = offered_name(manager.catalogue, request.path_params["env_name"])
    return _Call(manager, chooser, owner, env_name)


@router.post(
    "/reset",
    response_model=ObservationReply,
    openapi_extra=body_schema(ResetRequest, is_required=False),
)
async def reset(request: Request) -> Response:
    """Begin an episode. It stays when it has an `episode_id`, for `/step`; else it is only shown."""
    call = _call(request)
    body = await read_body(request, ResetRequest) if await request.body() else ResetRequest()
    if body.episode_id is None:
        return _json(await _show(call, body))
    return _json(await _begin(call, body, body.episode_id))


@router.post("/step", response_model=ObservationReply, openapi_extra=body_schema(TimedStepRequest))
async def step(request: Request) -> Response:
    """Take a step in the episode with this `episode_id`."""
    call = _call(request)
    body = await read_body(request, TimedStepRequest)
    if body.episode_id is None:
        raise EpisodeNotStarted(
            "over HTTP each call stands alone: give the reset and the step one episode_id, or use the "
            "WebSocket"
        )
    taking = _Taking(call, body.episode_id, body.step_index, body.action.text)
    if body.timeout_s is None:
        return _json(await taking.take())
    return _Awaited(taking.take, body.timeout_s)


@router.get("/state", response_model=EpisodeStateModel)
async def state(
    request: Request, episode_id: Annotated[str | None, Query(max_length=255)] = None
) -> Response:
    """Return which episode it is and where it stands; without an `episode_id` there is none."""
    call = _call(request)
    if episode_id is None:
        return _json(EpisodeStateModel().model_dump(mode="json"))
    return _json(state_of(await _looked(call, episode_id), episode_id))


@router.get("/health")
async def health(request: Request) -> HealthModel:
    """Say that the server works and offers this environment."""
    _call(request)
    return HealthModel()


@router.get("/metadata")
async def metadata(request: Request) -> Description:
    """Say what the environment is."""
    call = _call(request)
    detail = await call.manager.describe(call.env_name, {})
    return Description(
        name=call.env_name,
        description=detail.summary,
        version=plugin_version(detail.registered_id),
    )


@router.get("/schema")
async def schema(request: Request) -> SchemasModel:
    """Return the JSON Schemas of actions, observations and states."""
    _call(request)
    return SchemasModel(
        action=TextAction.model_json_schema(),
        observation=ShownModel.model_json_schema(mode="serialization"),
        state=EpisodeStateModel.model_json_schema(mode="serialization"),
    )


@router.post("/mcp")
async def mcp(request: Request) -> McpReply:
    """Answer, in JSON-RPC, that there is no MCP here."""
    _call(request)
    try:
        return McpReply.refusing(from_json(await request.body()))
    except ValueError:
        return McpReply.refusing(None)


router.add_api_websocket_route("/ws", serve_socket)


async def _show(call: _Call, body: ResetRequest) -> dict[str, JsonValue]:
    """Return the beginning of an episode that is freed at once."""
    session_id = new_id()
    seed = secrets.randbits(31) if body.seed is None else body.seed
    creation = await call.creation(body, session_id, seed)
    reply = await call.manager.create(call.owner, creation)
    await call.manager.delete(call.owner, session_id)
    return observed(reply, None)


async def _begin(call: _Call, body: ResetRequest, episode_id: str) -> dict[str, JsonValue]:
    """Begin an episode that stays; the same request again gets the same reply, until a step is taken."""
    try:
        _SESSION_ID.validate_python(episode_id)
    except ValidationError:
        raise InvalidInput(
            "over HTTP an episode_id has 1 to 128 letters, digits, _, ., : or -, "
            f"not {episode_id[:128]!r}"
        ) from None
    # Not a random seed: a reset that is sent again must ask for the same episode.
    seed = int(digest(episode_id)[:8], 16) if body.seed is None else body.seed
    creation = await call.creation(body, episode_id, seed)
    reply = await call.manager.create(call.owner, creation)
    standing = from_json(await call.manager.get(call.owner, episode_id))
    if standing["step_index"] > 0:
        raise SessionExists(
            f"episode {episode_id} has taken {standing['step_index']} steps; an episode_id is used "
            "once, choose another one"
        )
    return observed(reply, episode_id)


async def _looked(call: _Call, episode_id: str) -> bytes:
    """Return the SessionReply of an episode of this environment."""
    reply = await call.manager.get(call.owner, episode_id)
    if from_json(reply)["env_id"] != call.env_name:
        raise UnknownSession(f"{call.env_name} has no episode {episode_id!r}")
    return reply


class _Taking(NamedTuple):
    """A step to take."""

    call: _Call
    episode_id: str
    step_index: int | None
    text: str

    async def take(self) -> dict[str, JsonValue]:
        """Take it and return what it led to."""
        standing = from_json(await _looked(self.call, self.episode_id))
        index = standing["step_index"] if self.step_index is None else self.step_index
        request = StepRequest(step_index=index, action=self.text)
        reply = await self.call.manager.step(self.call.owner, self.episode_id, request)
        return observed(reply, self.episode_id)


class _Awaited(Response):
    """A reply that the caller waits for as long as it said; the work goes on to its end all the same."""

    def __init__(
        self, work: Callable[[], Awaitable[dict[str, JsonValue]]], timeout_s: float
    ) -> None:
        super().__init__()
        self._work = work
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        finished = anyio.Event()
        response = problem_response(
            DeadlineExceeded(
                f"no reply within timeout_s = {self._timeout_s}; the step is taken all the same, and "
                "the same step_index and action get its reply"
            ),
            scope["path"],
        )

        async def work() -> None:
            nonlocal response
            try:
                response = _json(await self._work())
            except SteppoError as error:
                log_failure(scope["path"], error)
                response = problem_response(error, scope["path"])
            finished.set()

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            with anyio.move_on_after(self._timeout_s):
                await finished.wait()
            await response(scope, receive, send)


def _json(document: dict[str, JsonValue]) -> Response:
    return Response(to_json(document), media_type="application/json")
