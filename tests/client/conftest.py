"""Small real things for the tests of the client: a chat endpoint and a server on loopback."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import stamina
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from steppo_server.app import create_app
from steppo_server.settings import ServerSettings


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither proxies nor keys of the machine reach a test."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def no_backoff() -> Iterator[None]:
    """Repeat requests as often as usual, but at once."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serve an app on a free port of loopback; yield its URL; stop it by its own handle."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A steppo server with every registered environment."""
    with serving(create_app(settings=ServerSettings(journal="sqlite://"))) as url:
        yield url


@pytest.fixture(scope="session")
def served() -> Callable[[ASGIApp], AbstractContextManager[str]]:
    """Serve an app of the test's own: `with served(app) as url`."""
    return serving


def completion(**changes: Any) -> dict[str, Any]:
    """Return a chat completion of the text "hi"; `message`, `choice` and top-level fields change."""
    message = {"role": "assistant", "content": "hi", **changes.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": "stop", **changes.pop("choice", {})}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "served-model",
        "choices": [choice],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        **changes,
    }


@dataclass
class Endpoint:
    """An OpenAI-compatible endpoint that answers as it is told.

    Attributes:
        replies: What it answers, one after the other, the last one for ever: a document, a
            Response, "hang" or "disconnect".
        requests: The bodies that it got.
    """

    base_url: str = ""
    replies: list[Any] = field(default_factory=lambda: [completion()])
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    completion: Callable[..., dict[str, Any]] = completion
    response: Callable[..., Response] = Response

    async def answer(self, request: Request) -> Response:
        self.requests.append(json.loads(await request.body()))
        self.keys.append(request.headers.get("authorization"))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if reply == "hang":
            while (await request.receive())["type"] != "http.disconnect":
                pass
            return Response()
        if reply == "disconnect":
            return _Dropped()
        return reply if isinstance(reply, Response) else JSONResponse(reply)


class _Dropped(Response):
    """Promises more than it sends, so that the connection is closed in the middle of the reply."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"100"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{"})


@pytest.fixture(scope="session")
def _shared_endpoint() -> Iterator[Endpoint]:
    shared = Endpoint()
    route = Route("/v1/chat/completions", shared.answer, methods=["POST"])
    with serving(Starlette(routes=[route])) as url:
        shared.base_url = f"{url}/v1"
        yield shared


@pytest.fixture
def endpoint(_shared_endpoint: Endpoint) -> Endpoint:
    """A chat endpoint on loopback that has been asked nothing yet."""
    _shared_endpoint.replies = [completion()]
    _shared_endpoint.requests = []
    _shared_endpoint.keys = []
    return _shared_endpoint
