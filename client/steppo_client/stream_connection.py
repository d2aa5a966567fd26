"""One socket to a server's stream, and the requests that wait for replies on it."""

import json
import logging
from copy import copy
from dataclasses import dataclass, field
from itertools import count

import anyio
from pydantic import JsonValue
from pydantic_core import from_json
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.http11 import Response

from steppo_env.errors import PayloadTooLarge, SteppoError, TransportError, error_from_problem

__all__ = ["StreamConnection", "open_connection"]

CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
PING_EVERY_S = 20.0
PING_TIMEOUT_S = 180.0
"""A server whose event loop is busy for so long is taken for lost."""
MAX_REPLY_BYTES = 2**28
MESSAGE_TOO_BIG = 1009

logger = logging.getLogger("steppo.client")


@dataclass(slots=True)
class _Waiting:
    """A request without a reply yet."""

    num_chars: int
    is_done: anyio.Event = field(default_factory=anyio.Event)
    reply: JsonValue | SteppoError = None


class StreamConnection:
    """Sends requests and hands each reply to the request whose id it has.

    A reply that nobody waits for any more is dropped: its request was given up.
    """

    def __init__(self, url: str, socket: ClientConnection) -> None:
        self._url = url
        self._socket = socket
        self._numbers = count(1)
        self._waiting: dict[str, _Waiting] = {}
        self.is_open = True

    async def ask(self, request: str, timeout_s: float) -> JsonValue:
        """Send a request and return the body of its reply.

        Args:
            request: The members of the frame after `request_id`, as JSON.

        Raises:
            TransportError: The reply did not come in time, or the connection was lost.
            SteppoError: What the server answered.
        """
        request_id = str(next(self._numbers))
        frame = f'{{"request_id":"{request_id}",{request}'
        waiting = self._waiting[request_id] = _Waiting(len(frame))
        try:
            with anyio.fail_after(timeout_s):
                await self._socket.send(frame)
                await waiting.is_done.wait()
        except TimeoutError:
            raise TransportError(f"{self._url} gave no reply within {timeout_s:g} s") from None
        except ConnectionClosed as error:
            raise self._lost(error) from error
        finally:
            self._waiting.pop(request_id, None)
        if isinstance(waiting.reply, SteppoError):
            raise waiting.reply
        return waiting.reply

    async def run(self) -> None:
        """Receive replies until the connection ends; then every request that waits fails."""
        error = TransportError("the client was closed")
        try:
            while True:
                self._take(await self._socket.recv())
        except ConnectionClosed as closed:
            error = self._lost(closed)
        except TransportError as unreadable:
            error = unreadable
        finally:
            self.is_open = False
            self._fail(error)
            with anyio.CancelScope(shield=True):
                await self._socket.close()

    async def close(self) -> None:
        """Close the socket."""
        self.is_open = False
        await self._socket.close()

    def _take(self, frame: str | bytes) -> None:
        try:
            reply = from_json(frame)
        except ValueError:
            reply = None
        if not isinstance(reply, dict) or "request_id" not in reply:
            raise TransportError(
                f"{self._url} sent what is no reply: {frame[:200]!r}; is this a steppo server?",
                http_status=200,
            )
        problem = reply.get("problem")
        answer = error_from_problem(problem) if isinstance(problem, dict) else reply.get("body")
        waiting = self._waiting.get(str(reply.get("request_id")))
        if waiting is not None:
            waiting.reply = answer
            waiting.is_done.set()
        elif reply.get("request_id") is None:
            logger.error("%s could not read a request: %s", self._url, answer)

    def _lost(self, closed: ConnectionClosed) -> TransportError:
        return TransportError(f"the connection to {self._url} was lost: {closed}")

    def _fail(self, error: SteppoError) -> None:
        waiting = list(self._waiting.values())
        longest = max(waiting, key=lambda request: request.num_chars, default=None)
        for request in waiting:
            if request.is_done.is_set():
                continue
            request.reply = copy(error)  # each its own, or they would share one traceback
            if self._socket.close_code == MESSAGE_TOO_BIG and request is longest:
                # The server does not say which; the others are sent again, in vain if it was they.
                request.reply = PayloadTooLarge(
                    f"{self._url} refused a request of {request.num_chars} characters: "
                    f"{self._socket.close_reason}"
                )
            request.is_done.set()


async def open_connection(url: str, key: str | None) -> StreamConnection:
    """Connect to `url`, which is the stream's.

    Raises:
        TransportError: Nobody answers there, or not a steppo server.
        SteppoError: What the server answered.
    """
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    try:
        socket = await connect(
            url,
            additional_headers=headers,
            compression=None,  # it would cost more than most steps
            open_timeout=CONNECT_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=PING_EVERY_S,
            ping_timeout=PING_TIMEOUT_S,
            max_size=MAX_REPLY_BYTES,
        )
    except InvalidStatus as error:
        raise _refusal(url, error.response) from error
    except (OSError, WebSocketException) as error:
        reason = str(error) or type(error).__name__
        raise TransportError(
            f"connecting to {url} failed: {reason}; is the server running?"
        ) from error
    return StreamConnection(url, socket)


def _refusal(url: str, response: Response) -> SteppoError:
    """Return the error with which a server answered instead of opening the stream."""
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        try:
            problem = json.loads(response.body or b"")
        except ValueError:
            problem = None
        if isinstance(problem, dict):
            return error_from_problem(problem)
    return TransportError(
        f"{url} answered {response.status_code} instead of opening the stream; is this a steppo "
        "server, and does the key fit?",
        http_status=response.status_code,
    )
