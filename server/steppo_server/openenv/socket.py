"""OpenEnv's WebSocket: one connection, one episode at a time, one request at a time."""

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from pydantic import JsonValue, ValidationError
from pydantic_core import to_json
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from steppo_env.errors import Forbidden
from steppo_server.auth import POLICY_VIOLATION, KeyScope, caller_of
from steppo_server.openenv.documents import (
    FRAME,
    CloseFrame,
    McpFrame,
    McpReply,
    ResetFrame,
    StateFrame,
)
from steppo_server.openenv.episodes import Chooser, OwnEpisode
from steppo_server.openenv.errors import error_data, frame_error
from steppo_server.problems import told_of
from steppo_server.sessions import SessionManager

__all__ = ["serve_socket"]

UNSUPPORTED_DATA = 1003
MESSAGE_TOO_BIG = 1009
MAX_REASON_BYTES = 123
"""A close frame has 125 bytes, and two are its code (RFC 6455, section 5.5)."""


async def serve_socket(websocket: WebSocket) -> None:
    """Serve a connection until either side ends it; its episode ends with it."""
    manager: SessionManager = websocket.app.state.manager
    try:
        owner = caller_of(websocket, KeyScope.ACT).owner
    except Forbidden as error:
        await websocket.close(POLICY_VIOLATION, error.detail[:MAX_REASON_BYTES])
        return
    await websocket.accept()
    chooser: Chooser = websocket.app.state.openenv_chooser
    episode = OwnEpisode(manager, chooser, owner, websocket.path_params["env_name"])
    settings = manager.settings
    connection = _Connection(websocket, episode, settings.max_body_bytes, settings.default_lease_s)
    try:
        await connection.run()
    finally:
        with anyio.CancelScope(shield=True):  # each part of it has a deadline of its own
            await episode.close()


class _Connection:
    """Reads ahead while a request is worked on, to see at once that the client has gone.

    The protocol has no request ids: after its own timeout the client would take a late reply for that
    of its next request, and so on for ever (OpenEnv issue 1143). So a request that comes before the
    last one was answered ends the connection: an error, where there would be wrong observations.
    """

    def __init__(
        self, websocket: WebSocket, episode: OwnEpisode, max_bytes: int, lease_s: float
    ) -> None:
        self._websocket = websocket
        self._episode = episode
        self._max_bytes = max_bytes
        self._lease_s = lease_s
        self._is_answering = False

    async def run(self) -> None:
        """Answer requests until the connection ends."""
        sender, receiver = anyio.create_memory_object_stream[str](1)
        async with anyio.create_task_group() as group:
            group.start_soon(self._read, sender)
            group.start_soon(self._keep_leased)
            await self._answer_all(receiver)
            group.cancel_scope.cancel()

    async def _read(self, sender: MemoryObjectSendStream[str]) -> None:
        async with sender:
            while True:
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                text: str | None = message.get("text")
                if text is None:
                    await self._close(UNSUPPORTED_DATA, "a message is JSON text, not bytes")
                    return
                if len(text.encode(errors="replace")) > self._max_bytes:
                    await self._close(MESSAGE_TOO_BIG, f"a message has {self._max_bytes} bytes")
                    return
                if self._is_answering:
                    await self._close(
                        POLICY_VIOLATION,
                        "one request at a time: the reply to the last one was not waited for",
                    )
                    return
                self._is_answering = True
                await sender.send(text)

    async def _keep_leased(self) -> None:
        while True:
            await anyio.sleep(self._lease_s / 3)
            await self._episode.renew()

    async def _answer_all(self, receiver: MemoryObjectReceiveStream[str]) -> None:
        async with receiver:
            async for text in receiver:
                reply = await self._answer(text)
                if reply is None:
                    await self._close(1000, "")
                    return
                self._is_answering = False  # the client may ask again as soon as it has the reply
                await self._send(to_json(reply).decode())

    async def _answer(self, text: str) -> dict[str, JsonValue] | None:
        """Return the reply to a request; None to one that ends the connection."""
        try:
            return await self._reply(text)
        except Exception as error:  # noqa: BLE001 - it is logged, and the request answered
            return {"type": "error", "data": error_data(told_of("openenv", error))}

    async def _reply(self, text: str) -> dict[str, JsonValue] | None:
        try:
            frame = FRAME.validate_json(text)
        except ValidationError as error:
            raise frame_error(error) from None
        if isinstance(frame, CloseFrame):
            return None
        if isinstance(frame, StateFrame):
            return {"type": "state", "data": self._episode.state()}
        if isinstance(frame, McpFrame):
            refusal = McpReply.refusing(frame.data).model_dump(mode="json")
            return {"type": "mcp", "data": refusal}
        if isinstance(frame, ResetFrame):
            return {"type": "observation", "data": await self._episode.reset(frame.data)}
        return {"type": "observation", "data": await self._episode.step(frame.data.text)}

    async def _send(self, text: str) -> None:
        states = (self._websocket.client_state, self._websocket.application_state)
        if states == (WebSocketState.CONNECTED, WebSocketState.CONNECTED):
            try:
                await self._websocket.send_text(text)
            except WebSocketDisconnect:
                return  # the reader hears of it as well

    async def _close(self, code: int, reason: str) -> None:
        states = (self._websocket.client_state, self._websocket.application_state)
        if states == (WebSocketState.CONNECTED, WebSocketState.CONNECTED):
            try:
                await self._websocket.close(code, reason)
            except WebSocketDisconnect:
                return
