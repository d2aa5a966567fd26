"""Who may be asked for: a server that asks nobody for a key answers only this machine's own programs."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from steppo_env.errors import Forbidden
from steppo_server.auth import POLICY_VIOLATION
from steppo_server.problems import problem_response

__all__ = ["LocalOnly", "is_loopback"]


def is_loopback(host: str) -> bool:
    """Return whether a name or address is this machine's own, whoever resolves it."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class LocalOnly:
    """Middleware for a server on loopback without keys: refuses what pages of other sites send.

    A browser on this machine reaches loopback as well. A page whose name is made to resolve to
    127.0.0.1 (DNS rebinding) is told by the `Host` it asks for; one that sends forms or opens
    sockets here, by its `Origin`.

    Args:
        allowed_hosts: Names besides this machine's own, such as that of a proxy in front.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str] = ()) -> None:
        self.app = app
        self._allowed = frozenset(name.lower() for name in allowed_hosts)
        # Clients ask for the same few names all the time.
        self._is_allowed = lru_cache(maxsize=100)(self._find_allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked, origin = f"//{headers.get('host', '')}", headers.get("origin")
        if not self._is_allowed(asked):
            error = Forbidden(
                "this server asks for no key and answers only to names of its own machine, such as "
                "127.0.0.1 or localhost; others are for its operator to allow (allowed_hosts)"
            )
        elif origin is not None and not self._is_allowed(origin):
            error = Forbidden("pages of other sites may not use this server, which asks for no key")
        else:
            await self.app(scope, receive, send)
            return
        await _refuse(error, scope, receive, send)

    def _find_allowed(self, url: str) -> bool:
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            return False
        return is_loopback(host) or host in self._allowed


async def _refuse(error: Forbidden, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await WebSocketClose(code=POLICY_VIOLATION, reason=error.detail[:120])(scope, receive, send)
    else:
        await problem_response(error, scope["path"])(scope, receive, send)
