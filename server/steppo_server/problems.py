"""Every error as an RFC 9457 problem, in one place."""

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from steppo_env.errors import CapacityExceeded, InvalidInput, NotReady, SteppoError
from steppo_server.logs import current_request_id

__all__ = [
    "BUG",
    "answer_error",
    "install_handlers",
    "log_failure",
    "problem_bytes",
    "problem_response",
    "told_of",
]

MEDIA_TYPE = "application/problem+json"
METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")

BUG = "the server failed; its log says why"

logger = logging.getLogger("steppo.server")


def problem_bytes(problem: Mapping[str, JsonValue]) -> bytes:
    """Return a problem as JSON that every client can read, whatever its texts hold."""
    # A lone surrogate, which a traceback's text may have, is no UTF-8.
    return json.dumps(problem, ensure_ascii=False).encode(errors="replace")


def log_failure(where: str, error: SteppoError) -> None:
    """Log an error that is not the client's. Want of room is no failure and has no traceback."""
    told = {"status": error.status}
    if isinstance(error, CapacityExceeded | NotReady):
        logger.warning("%s: %s", where, error, extra=told)
    elif error.status >= 500:
        logger.error("%s: %s", where, error, exc_info=error, extra=told)


def told_of(where: str, error: Exception) -> SteppoError:
    """Log an error as its kind wants, and return what a client is told of it: of a bug, nothing."""
    if isinstance(error, SteppoError):
        log_failure(where, error)
        return error
    logger.error("%s", where, exc_info=error)
    return SteppoError(BUG)


def problem_response(error: SteppoError, instance: str | None = None) -> Response:
    """Return an error as a response; `retry_after_s` among its members becomes a header."""
    headers = {}
    retry_after_s = error.members.get("retry_after_s")
    if isinstance(retry_after_s, int | float):
        headers["Retry-After"] = str(max(1, round(retry_after_s)))
    return Response(problem_bytes(error.to_problem(instance)), error.status, headers, MEDIA_TYPE)


def answer_error(request: Request, error: SteppoError) -> Response:
    """Log an error that a request ended in, where it is the server's, and return it as a response."""
    log_failure(f"{request.method} {quote(request.url.path)}", error)
    return problem_response(error, request.url.path)


def install_handlers(app: FastAPI) -> None:
    """Answer every error of the app with a problem."""

    async def on_steppo_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, SteppoError)
        return answer_error(request, error)

    async def on_invalid_parameter(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        lines = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        return problem_response(InvalidInput("; ".join(lines)), request.url.path)

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        problem: dict[str, JsonValue] = {
            "type": "about:blank",
            "title": status.phrase,
            "status": status.value,
            "detail": f"{request.method} {request.url.path}: {error.detail}",
        }
        headers = dict(error.headers or {})
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_methods_of(request))
        return Response(problem_bytes(problem), status.value, headers, MEDIA_TYPE)

    async def on_bug(request: Request, error: Exception) -> Response:
        # The exception itself is logged by the server; its text may hold what clients must not see.
        response = problem_response(SteppoError(BUG), None)
        # Made outside of the middleware that does this for other replies.
        response.headers["X-Request-Id"] = current_request_id.get()
        return response

    app.add_exception_handler(SteppoError, on_steppo_error)
    app.add_exception_handler(RequestValidationError, on_invalid_parameter)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(Exception, on_bug)


def _methods_of(request: Request) -> list[str]:
    """Return what can be done with a path; Starlette tells it of the first route that has it."""
    return [
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]
