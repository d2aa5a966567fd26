"""Who may do what: bearer keys, each with a name and scopes; at rest only their digests."""

import hmac
import re
import secrets
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from steppo_env.config_file import read_config_table
from steppo_env.errors import Forbidden, InvalidInput, SteppoError, Unauthorized
from steppo_env.tools import explain
from steppo_server.problems import problem_response

__all__ = [
    "ANYBODY",
    "DIGEST_PREFIX",
    "NO_KEYS",
    "Authenticate",
    "Caller",
    "KeyScope",
    "Keyring",
    "caller_of",
    "digest_of",
    "is_key_name",
    "new_key",
    "refuse",
]

KEY_PREFIX = "steppo_"
DIGEST_PREFIX = "sha256:"
POLICY_VIOLATION = 1008
_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""What load balancers and container engines ask without a key."""


class KeyScope(StrEnum):
    """What a key may do."""

    ACT = "act"
    """See environments and tasks; create, step, fork and close sessions of its own."""
    EXPERT = "expert"
    """Ask for expert actions: for demonstrations, never for the key a policy under test has."""
    TRAIN = "train"
    """Read, claim and annotate trajectories."""
    ADMIN = "admin"
    """Read metrics."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request.

    Attributes:
        owner: Whose sessions they see; empty where nobody is asked for a key.
    """

    owner: str
    scopes: frozenset[KeyScope]

    def require(self, scope: KeyScope) -> None:
        """Check that the caller may do this.

        Raises:
            Forbidden: Their key has not this scope.
        """
        if scope not in self.scopes:
            raise Forbidden(f"this needs a key with the scope {scope.value!r}", scope=scope.value)


ANYBODY = Caller("", frozenset(KeyScope))
"""Every caller of a server that asks for no key."""


class Keyring:
    """The keys that a server knows."""

    def __init__(self, callers: Mapping[bytes, Caller]) -> None:
        self._callers = dict(callers)

    def caller(self, key: str) -> Caller:
        """Return whose key this is.

        Raises:
            Unauthorized: It is nobody's.
        """
        # Keys are long and random, so a plain digest is enough. Every one is compared, in constant
        # time each, so that the time taken tells nothing.
        wanted, found = digest_of(key), None
        for known, caller in self._callers.items():
            if hmac.compare_digest(known, wanted):
                found = caller
        if found is None:
            raise Unauthorized("the bearer key is not known here")
        return found

    @classmethod
    def from_toml(cls, path: Path) -> "Keyring":
        """Read the `[keys.NAME]` tables of a configuration file; each has `digest` and `scopes`.

        Raises:
            MissingData: The file cannot be read.
            InvalidInput: It is not TOML of this form.
        """
        callers: dict[bytes, Caller] = {}
        for name, table in read_config_table(path, "keys").items():
            where = f"{path}: [keys.{name}]"
            if not is_key_name(name):
                raise InvalidInput(f"{where}: a name has 1 to 64 letters, digits, _, . or -")
            try:
                entry = _KeyEntry.model_validate(table)
            except ValidationError as error:
                raise InvalidInput(f"{where}: {explain(error)}") from None
            digest = bytes.fromhex(entry.digest.removeprefix(DIGEST_PREFIX))
            if digest in callers:
                raise InvalidInput(f"{where} has the digest of another key")
            callers[digest] = Caller(name, frozenset(entry.scopes))
        return cls(callers)

    def __bool__(self) -> bool:
        return bool(self._callers)


NO_KEYS = Keyring({})
"""Asks nobody for a key."""


class _KeyEntry(BaseModel):
    """One key of the configuration file."""

    model_config = ConfigDict(extra="forbid")

    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    scopes: list[KeyScope] = Field(min_length=1)


def new_key() -> str:
    """Return a new key: 256 random bits."""
    return f"{KEY_PREFIX}{secrets.token_urlsafe(32)}"


def is_key_name(name: str) -> bool:
    """Return whether a key can have this name."""
    return _NAME.fullmatch(name) is not None


def digest_of(key: str) -> bytes:
    """Return what is kept of a key."""
    return sha256(key.encode()).digest()


class Authenticate:
    """Middleware that lets a request through when its bearer key is known, and says whose it is."""

    def __init__(self, app: ASGIApp, keyring: Keyring) -> None:
        self.app = app
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        if not self._keyring:
            state["caller"] = ANYBODY
        elif scope["path"] not in OPEN_PATHS:
            try:
                state["caller"] = self._keyring.caller(_bearer(Headers(scope=scope)))
            except Unauthorized as error:
                await refuse(error, scope, receive, send)
                return
        await self.app(scope, receive, send)


def _bearer(headers: Headers) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        # All that a client can send whose only setting is a URL: http://any:KEY@host/...
        key = _password(key)
    elif scheme.lower() != "bearer":
        key = ""
    if not key:
        raise Unauthorized("send a key: the header Authorization with Bearer and the key")
    return key.strip()


def _password(credentials: str) -> str:
    """Return the password of Basic credentials (RFC 7617), or nothing."""
    try:
        return b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


async def refuse(error: SteppoError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request, or what would become a WebSocket, with a problem."""
    is_socket = scope["type"] == "websocket"
    if is_socket and "websocket.http.response" not in scope.get("extensions", {}):
        await WebSocketClose(code=POLICY_VIOLATION, reason=error.detail)(scope, receive, send)
        return
    response = problem_response(error, scope["path"])
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    await response(scope, receive, send)


def caller_of(request: HTTPConnection, scope: KeyScope) -> Caller:
    """Return who sends a request.

    Raises:
        Forbidden: Their key has not the scope that this needs.
    """
    caller: Caller = request.state.caller
    caller.require(scope)
    return caller
