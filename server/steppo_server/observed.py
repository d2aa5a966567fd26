"""What is known of each request: its id, its reply in the numbers, and where asked a log line and a trace."""

import logging
import re
import secrets
import time
from itertools import count
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steppo_server.logs import note_request
from steppo_server.metrics import Metrics

if TYPE_CHECKING:  # only with the extra [otel]
    from steppo_server.tracing import Tracing

__all__ = ["REQUEST_ID_HEADER", "Observed"]

REQUEST_ID_HEADER = b"x-request-id"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:\-]{1,128}")

logger = logging.getLogger("steppo.access")


class Observed:
    """Middleware that gives each request an id, the caller's if it sent one, and counts its reply.

    Args:
        tracing: Where spans go, or None.
        is_logged: Log a line for each request: method, path, status, seconds; never what was sent.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, tracing: "Tracing | None", *, is_logged: bool
    ) -> None:
        self.app = app
        self._metrics = metrics
        self._tracing = tracing
        self._is_logged = is_logged
        self._prefix = secrets.token_hex(6).encode()
        self._numbers = count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request_id = _given(scope) or b"%b-%x" % (self._prefix, next(self._numbers))
        # Never reset: a server runs each request in a context of its own, and the handlers outside
        # of this one, for exceptions that nobody expected, log the id as well.
        note_request(request_id.decode(), is_one=scope["type"] == "http")
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        status = 0

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # A new list: the one that is here may be a response's own.
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID_HEADER, request_id)]
            await send(message)

        begun = time.perf_counter()
        try:
            if self._tracing is None:
                await self.app(scope, receive, tagged)
            else:
                with self._tracing.request(scope):
                    await self.app(scope, receive, tagged)
        except Exception:
            status = status or 500
            raise
        finally:
            # A client that went away before the reply has none to count.
            if status:
                self._metrics.replied(status)
            if self._is_logged:
                _log(scope, status, time.perf_counter() - begun)


def _given(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER:
            return value if _REQUEST_ID.fullmatch(value) else None
    return None


def _log(scope: Scope, status: int, duration_s: float) -> None:
    # Neither the query, which may hold options, nor any header, which may hold a key.
    method, path = scope["method"], quote(scope["path"])
    facts = {"method": method, "path": path, "status": status, "duration_s": round(duration_s, 6)}
    logger.info("%s %s %d %.1f ms", method, path, status, 1e3 * duration_s, extra=facts)
