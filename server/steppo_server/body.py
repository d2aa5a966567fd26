"""Request bodies: never longer than allowed, and checked against the wire models."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steppo_env.errors import InvalidInput, MalformedRequest, PayloadTooLarge
from steppo_env.tools import explain
from steppo_server.problems import problem_response

__all__ = ["BodyLimit", "parse_body", "read_body"]

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
        # Python refuses to read a number of thousands of digits.
        declared = _declared(scope).lstrip(b"0")
        if declared.isdigit() and int(declared[:20]) > self.max_body_bytes:
            await problem_response(self._too_large(), scope["path"])(scope, receive, send)
            return
        num_bytes = 0

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self.max_body_bytes:
                raise self._too_large()
            return message

        await self.app(scope, counted, send)

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"a body may have {self.max_body_bytes} bytes", max_body_bytes=self.max_body_bytes
        )


def _declared(scope: Scope) -> bytes:
    """Return what the request says the length of its body is."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            length: bytes = value
            return length
    return b""


async def read_body(request: Request, model: type[ModelT]) -> ModelT:
    """Return the request's body as a wire model.

    Raises:
        PayloadTooLarge: The body is longer than allowed.
        MalformedRequest: The body is not JSON.
        InvalidInput: The body is JSON of another form.
    """
    return parse_body(await request.body(), model)


def parse_body(body: bytes, model: type[ModelT]) -> ModelT:
    """Return a JSON document as a wire model.

    Raises:
        MalformedRequest: It is not JSON.
        InvalidInput: It is JSON of another form.
    """
    try:
        # Strict, as the schema says: a true is no 1, and a "1" is no number.
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        if error.errors(include_url=False)[0]["type"] == "json_invalid":
            reason = explain(error).removeprefix("value: ")
            raise MalformedRequest(f"the body is not a JSON document: {reason}") from None
        raise InvalidInput(explain(error)) from None
