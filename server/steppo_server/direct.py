"""The few routes that take nearly all requests, answered before FastAPI looks for them."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from steppo_env.errors import SteppoError
from steppo_server.problems import answer_error

__all__ = ["Direct", "Endpoint"]

Endpoint = Callable[..., Awaitable[Response]]
"""Takes the request, and the parameters in the path by name; reads the body itself."""


class Direct:
    """Middleware that calls the endpoints of some POST routes itself.

    What FastAPI does around an endpoint, and to find it, costs more than most steps. The application
    has a route of the same path as well, for the OpenAPI document and for other methods.

    Args:
        endpoints: By path, such as `/v1/sessions/{session_id}/steps`. All begin with `/v1/`.
    """

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, Endpoint]) -> None:
        self.app = app
        self._endpoints = [
            (Route(path, endpoint), endpoint) for path, endpoint in endpoints.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            for route, endpoint in self._endpoints:
                match = route.path_regex.match(scope["path"])
                if match is not None:
                    scope["path_params"], scope["route"] = match.groupdict(), route
                    await _answer(endpoint, Request(scope, receive, send), send)
                    return
        await self.app(scope, receive, send)


async def _answer(endpoint: Endpoint, request: Request, send: Send) -> None:
    try:
        response = await endpoint(request, **request.path_params)
    except SteppoError as error:
        response = answer_error(request, error)
    await response(request.scope, request.receive, send)
