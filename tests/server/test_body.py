import json
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from steppo_env.errors import InvalidInput, MalformedRequest, PayloadTooLarge, SteppoError
from steppo_server.body import BodyLimit, read_body
from steppo_server.problems import problem_response

pytestmark = pytest.mark.anyio

LIMIT = 1000


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int


async def echo(request: Request) -> Response:
    document = await read_body(request, Document)
    return Response(str(document.number))


async def on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SteppoError)
    return problem_response(error)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(
        routes=[Route("/", echo, methods=["POST"])], exception_handlers={SteppoError: on_error}
    )
    app.add_middleware(BodyLimit, max_body_bytes=LIMIT)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client


def slug(response: httpx.Response) -> str:
    return str(json.loads(response.content)["type"]).removeprefix("urn:steppo:problem:")


def padded(num_bytes: int) -> bytes:
    return b'{"number":7}'.ljust(num_bytes)


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 100):
        yield body[start : start + 100]


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_may_have_exactly_the_limit_and_not_one_byte_more(
    client: httpx.AsyncClient, is_chunked: bool
) -> None:
    for num_bytes, status in ((LIMIT, 200), (LIMIT + 1, 413)):
        body = padded(num_bytes)
        response = await client.post("/", content=chunks(body) if is_chunked else body)
        assert ("content-length" in response.request.headers) is not is_chunked
        assert response.status_code == status
        if status == 413:
            assert slug(response) == PayloadTooLarge.slug


async def test_a_body_that_is_declared_too_long_is_refused_unread() -> None:
    sent: list[Message] = []

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the application was reached")

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    for declared in (b"1001", b"9" * 6000, b"0001001"):
        scope = {"type": "http", "path": "/", "headers": [(b"content-length", declared)]}
        await BodyLimit(never, LIMIT)(scope, receive, send)
    assert [message["status"] for message in sent if "status" in message] == [413] * 3


@pytest.mark.parametrize("declared", ["0", "00", "x", "-5", "", "000000000000000000000000012"])
async def test_a_content_length_that_says_nothing_useful_is_no_error(
    client: httpx.AsyncClient, declared: str
) -> None:
    response = await client.post("/", content=padded(12), headers={"content-length": declared})
    assert response.text == "7"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"number":7}x',
        b'{"number":"\xff"}',
        b'{"number":"\\ud800"}',
        b"[" * 900,
        b'{"number":}',
        b"\x00",
        '{"number":7}'.encode("utf-16"),
    ],
)
async def test_what_is_not_json_is_malformed(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/", content=body)
    assert (response.status_code, slug(response)) == (400, MalformedRequest.slug)


@pytest.mark.parametrize(
    "body", [b"null", b"[]", b'"x"', b"{}", b'{"number":"x"}', b'{"number":1,"nubmer":2}']
)
async def test_json_of_another_form_is_invalid_and_says_where(
    client: httpx.AsyncClient, body: bytes
) -> None:
    response = await client.post("/", content=body)
    assert (response.status_code, slug(response)) == (422, InvalidInput.slug)
    assert json.loads(response.content)["detail"].startswith(("number: ", "nubmer: ", "value: "))


@pytest.mark.parametrize("value", [b"true", b'"7"', b"7.0", b"null", b"[7]"])
async def test_what_is_no_number_is_not_read_as_one(
    client: httpx.AsyncClient, value: bytes
) -> None:
    response = await client.post("/", content=b'{"number":%b}' % value)
    assert response.status_code == 422
    assert slug(response) == "invalid-input"
