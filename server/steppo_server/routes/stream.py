"""`WS /v1/stream`: the operations over one socket, many at a time, told apart by their request ids."""

import asyncio
from urllib.parse import urlsplit

import anyio
from fastapi import APIRouter
from pydantic_core import from_json, to_json
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from steppo_env.errors import Forbidden, SteppoError
from steppo_env.stream_wire import StreamRequest
from steppo_server.auth import Caller, KeyScope, caller_of, refuse
from steppo_server.body import parse_body
from steppo_server.operations import perform
from steppo_server.problems import problem_bytes, told_of
from steppo_server.sessions import SessionManager

__all__ = ["router"]

router = APIRouter()

UNSUPPORTED_DATA = 1003
MESSAGE_TOO_BIG = 1009
MAX_ID_CHARS = 128


@router.websocket("/v1/stream")
async def stream(socket: WebSocket) -> None:
    """Take requests as they come and answer each when it is done, until either side closes.

    As many as `stream_requests` are worked on at a time; beyond them nothing is read. What has begun
    when the socket closes is finished all the same; only its reply gets lost.
    """
    try:
        caller = caller_of(socket, KeyScope.ACT)
        _check_origin(socket)
    except Forbidden as error:
        await refuse(error, socket.scope, socket.receive, socket.send)
        return
    manager: SessionManager = socket.app.state.manager
    settings = manager.settings
    room = anyio.Semaphore(settings.stream_requests, fast_acquire=True)

    async def answer(frame: bytes) -> None:
        try:
            reply = await _reply(manager, caller, frame)
            if socket.application_state is WebSocketState.CONNECTED:
                await socket.send({"type": "websocket.send", "text": reply.decode()})
        except (WebSocketDisconnect, RuntimeError):
            pass  # nobody is left to hear it; uvicorn has the other error for a stream it closed itself
        finally:
            room.release()

    await socket.accept()
    # Not anyio's group: starting a task there costs half as much as a whole step.
    async with asyncio.TaskGroup() as group:
        while True:
            await room.acquire()
            message = await socket.receive()
            if message["type"] != "websocket.receive":
                return
            text = message.get("text")
            if text is None:
                await socket.close(UNSUPPORTED_DATA, "a frame is text")
                return
            frame = text.encode()
            if len(frame) > settings.max_body_bytes:
                await socket.close(MESSAGE_TOO_BIG, f"a frame has {settings.max_body_bytes} bytes")
                return
            group.create_task(answer(frame))


def _check_origin(socket: WebSocket) -> None:
    """Refuse pages of other origins: browsers let every page open sockets to anywhere."""
    origin = socket.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != socket.headers.get("host"):
        raise Forbidden(f"pages of {origin[:200]} may not open streams here")


async def _reply(manager: SessionManager, caller: Caller, frame: bytes) -> bytes:
    """Do what a frame asks for and return the frame that answers it."""
    try:
        request = parse_body(frame, StreamRequest)
        status, body = await perform(manager, caller, request)
    except Exception as error:  # noqa: BLE001 - it is logged, and the frame answered
        return _problem(frame, told_of("a request of the stream", error))
    request_id = to_json(request.root.request_id)
    return b'{"request_id":%b,"status":%d,"body":%b}' % (request_id, status, body)


def _problem(frame: bytes, error: SteppoError) -> bytes:
    reply = {"request_id": _request_id(frame), "status": error.status}
    return problem_bytes({**reply, "problem": error.to_problem("/v1/stream")})


def _request_id(frame: bytes) -> str | None:
    """Return the request id of a frame that may be broken, or None."""
    try:
        document = from_json(frame)
    except ValueError:
        return None
    found = document.get("request_id") if isinstance(document, dict) else None
    return found if isinstance(found, str) and 0 < len(found) <= MAX_ID_CHARS else None
