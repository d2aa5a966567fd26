"""Every error as an RFC 9457 problem, in one place."""

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from steppo_env.errors import CapacityExceeded, InvalidInput, SteppoError

__all__ = ["install_handlers", "log_failure", "problem_bytes", "problem_response"]

MEDIA_TYPE = "application/problem+json"

logger = logging.getLogger("steppo.server")


def problem_bytes(problem: Mapping[str, JsonValue]) -> bytes:
    """Return a problem as JSON that every client can read, whatever its texts hold."""
    # A lone surrogate, which a traceback's text may have, is no UTF-8.
    return json.dumps(problem, ensure_ascii=False).encode(errors="replace")


def log_failure(where: str, error: SteppoError) -> None:
    """Log an error that is not the client's. Want of room is no failure and has no traceback."""
    if isinstance(error, CapacityExceeded):
        logger.warning("%s: %s", where, error)
    elif error.status >= 500:
        logger.error("%s: %s", where, error, exc_info=error)


def problem_response(error: SteppoError, instance: str | None = None) -> Response:
    """Return an error as a response; `retry_after_s` among its members becomes a header."""
    headers = {}
    retry_after_s = error.members.get("retry_after_s")
    if isinstance(retry_after_s, int | float):
        headers["Retry-After"] = str(max(1, round(retry_after_s)))
    return Response(problem_bytes(error.to_problem(instance)), error.status, headers, MEDIA_TYPE)


def install_handlers(app: FastAPI) -> None:
    """Answer every error of the app with a problem."""

    async def on_steppo_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, SteppoError)
        log_failure(f"{request.method} {request.url.path}", error)
        return problem_response(error, request.url.path)

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
        return Response(problem_bytes(problem), status.value, error.headers, MEDIA_TYPE)

    async def on_bug(request: Request, error: Exception) -> Response:
        # The exception itself is logged by the server; its text may hold what clients must not see.
        return problem_response(SteppoError("the server failed; its log says why"), None)

    app.add_exception_handler(SteppoError, on_steppo_error)
    app.add_exception_handler(RequestValidationError, on_invalid_parameter)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(Exception, on_bug)
