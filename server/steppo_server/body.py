"""Request bodies: never longer than allowed, and checked against the wire models."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steppo_env.errors import InvalidInput, MalformedRequest, PayloadTooLarge
from steppo_env.tools import explain
from steppo_server.problems import problem_response

__all__ = ["BodyLimit", "read_body"]

ModelT = TypeVar("ModelT", bound=BaseModel)


class BodyLimit:
    """Middleware that refuses bodies longer than `max_body_bytes`, declared or not."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        too_large = PayloadTooLarge(
            f"a body may have {self.max_body_bytes} bytes", max_body_bytes=self.max_body_bytes
        )
        declared = dict(scope["headers"]).get(b"content-length", b"0").lstrip(b"0")
        # Python refuses to read a number of thousands of digits.
        if declared.isdigit() and int(declared[:20]) > self.max_body_bytes:
            await problem_response(too_large, scope["path"])(scope, receive, send)
            return
        num_bytes = 0

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self.max_body_bytes:
                raise too_large
            return message

        await self.app(scope, counted, send)


async def read_body(request: Request, model: type[ModelT]) -> ModelT:
    """Return the request's body as a wire model.

    Raises:
        PayloadTooLarge: The body is longer than allowed.
        MalformedRequest: The body is not JSON.
        InvalidInput: The body is JSON of another form.
    """
    body = await request.body()
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if error.errors(include_url=False)[0]["type"] == "json_invalid":
            reason = explain(error).removeprefix("value: ")
            raise MalformedRequest(f"the body is not a JSON document: {reason}") from None
        raise InvalidInput(explain(error)) from None
