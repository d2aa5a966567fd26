"""Whatever bytes arrive, the answer is a refusal, and the server works on.

`STEPPO_FUZZ_INPUTS=20000` sends that many; what the n-th input is follows from n alone.
"""

import gc
import json
import os
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from websockets.sync.client import connect

from tests.conftest import Serve
from tests.server.conftest import Serving

NUM_INPUTS = int(os.environ.get("STEPPO_FUZZ_INPUTS", "1500"))
STATM = Path("/proc/self/statm")
NUM_FRAMES = max(60, NUM_INPUTS // 20)
REPLY_S = 10.0
GROWTH_BYTES = 60_000_000
"""More than the allocator's slack, and far less than what was sent."""

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60 + NUM_INPUTS // 20)]

ENV_ID = "test/Light-v0"
CREATION = {"env_id": ENV_ID, "task_id": "train-0", "seed": 1, "lease_s": 60, "options": {}}
MESSAGE = {
    "role": "assistant",
    "content": "x",
    "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": [1]}'}}
    ],
}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "/v1/sessions": {**CREATION, "session_id": "new"},
    "/v1/groups": {**CREATION, "size": 2, "group_id": "g"},
    "/v1/sessions/s/steps": {"step_index": 0, "action": MESSAGE},
    "/v1/sessions/s/forks": {"at_step": 0, "count": 1, "fork_id": "f"},
    "/v1/leases": {"session_ids": ["s", "t"], "revive": False},
    "/v1/batch/sessions": {"sessions": [{**CREATION, "session_id": "b"}]},
    "/v1/batch/steps": {"steps": [{"session_id": "s", "step_index": 0, "action": "x"}]},
}
"""A valid body of each call that takes one."""
# Any of these is what an unlucky client may put in the place of any value.
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**31,
    2**63,
    -(2**63) - 1,
    10**400,
    1.5,
    5e-324,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "\x00",
    "\ud800",
    "\udfff\ud800",
    "\U0010ffff",
    "a" * 5_000,
    "../../etc/passwd",
    "%00",
    "' OR 1=1 --",
    [],
    {},
    [[]],
    {"": None},
    {"\x00": "\ud800"},
    {"__proto__": {"x": 1}},
    ["x"] * 2_000,
)
HUGE_NUMBERS = ("9" * 5_000, "-" + "9" * 400, "1e400", "-1e-400", "0." + "1" * 5_000)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the way to each value in a document, the document itself included."""
    yield path
    if isinstance(value, dict):
        for key, child in value.items():
            yield from places(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from places(child, (*path, index))


def replaced(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Return a document in which something else stands at a place."""
    if not path:
        return value
    copy: Any = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


def odd_value(document: Any, rng: Random) -> bytes:
    """Put an odd value in the place of some."""
    for _ in range(rng.randint(1, 3)):
        path = rng.choice(list(places(document)))
        document = replaced(document, path, rng.choice(ODD_VALUES))
    return json.dumps(document).encode()


def odd_members(document: Any, rng: Random) -> bytes:
    """Leave a member out, rename one, add one, or say one twice."""
    members = [f"{json.dumps(key)}:{json.dumps(value)}" for key, value in document.items()]
    place = rng.randrange(len(members))
    match rng.randrange(4):
        case 0:
            del members[place]
        case 1:
            members[place] = members[place].replace('"', '"x', 1)
        case 2:
            members.append(f"{json.dumps(rng.choice(('extra', '', chr(0))))}:1")
        case _:
            members.append(members[place].partition(":")[0] + ":[7]")
    return ("{" + ",".join(members) + "}").encode()


def odd_text(document: Any, rng: Random) -> bytes:
    """Put in the place of some value a huge number, or what is nested deeper than anybody needs."""
    depth = rng.choice((59, 61, 65, 130, 190, 250, 1_000, 50_000))
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    nested = opening * depth + "1" + closing * rng.choice((0, depth))
    path = rng.choice(list(places(document)))
    text = rng.choice((nested, rng.choice(HUGE_NUMBERS)))
    return json.dumps(replaced(document, path, "@")).replace('"@"', text).encode()


def odd_bytes(document: Any, rng: Random) -> bytes:
    """Change, insert or cut out bytes."""
    body = bytearray(json.dumps(document).encode())
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(body) + 1)
        match rng.randrange(4):
            case 0:
                body[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                body[place:place] = rng.choice(
                    (b"\x00", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\\u", b"\\ud800")
                )
            case 2:
                del body[place : place + rng.randint(1, 20)]
            case _:
                del body[place:]
    return bytes(body)


KINDS: tuple[Callable[[Any, Random], bytes], ...] = (odd_value, odd_members, odd_text, odd_bytes)


def body_of(number: int) -> tuple[str, bytes]:
    """Return the path and the body of an input."""
    rng = Random(number)
    path = rng.choice(list(DOCUMENTS))
    return path, rng.choice(KINDS)(DOCUMENTS[path], rng)


def check_reply(number: int, response: httpx.Response) -> None:
    """Check that the input was refused as a problem, or was no bad one after all."""
    said = f"input {number}: {response.status_code} {response.text[:500]}"
    assert response.status_code < 500, said
    if response.status_code >= 400:
        assert response.headers["content-type"] == "application/problem+json", said
        assert response.json()["status"] == response.status_code, said
    else:
        results = response.json().get("results", [])
        assert all(result["status"] < 500 for result in results), said


def begun_ids(reply: Any) -> list[str]:
    """Return the ids of the sessions in a reply."""
    if isinstance(reply, list):
        return [session_id for item in reply for session_id in begun_ids(item)]
    if not isinstance(reply, dict):
        return []
    found = [reply["session_id"]] if "lease_expires_at" in reply and "seed" in reply else []
    return found + begun_ids([reply.get(key) for key in ("sessions", "session", "results")])


async def serve_afresh(client: httpx.AsyncClient) -> None:
    """Check that a session begins and takes a step, and leave it where the inputs find one."""
    await client.delete("/v1/sessions/s")
    begun = await client.post("/v1/sessions", json={**CREATION, "session_id": "s"})
    assert begun.status_code == 201, begun.text
    step = await client.post("/v1/sessions/s/steps", json={"step_index": 0, "action": "x"})
    assert step.status_code == 200, step.text
    await client.delete("/v1/sessions/s")
    await client.post("/v1/sessions", json={**CREATION, "session_id": "s"})


def memory() -> int:
    """Return the bytes that this process has in memory; 0 where that cannot be read."""
    gc.collect()
    if not STATM.exists():
        return 0
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_no_body_makes_the_server_fail(serving: Serving) -> None:
    statuses: Counter[int] = Counter()
    before = 0
    async with serving() as client:
        for number in range(NUM_INPUTS):
            if number % 25 == 0:
                await serve_afresh(client)
            if number == NUM_INPUTS // 3:
                before = memory()
            path, body = body_of(number)
            response = await client.post(path, content=body)
            check_reply(number, response)
            statuses[response.status_code] += 1
            if response.is_success:
                for session_id in begun_ids(response.json()):
                    await client.delete(f"/v1/sessions/{session_id}")
        await serve_afresh(client)
        assert memory() - before < GROWTH_BYTES
    assert statuses[400] > NUM_INPUTS // 10, statuses
    assert statuses[422] > NUM_INPUTS // 4, statuses


async def test_no_path_or_query_makes_the_server_fail(serving: Serving) -> None:
    async with serving() as client:
        for number in range(NUM_INPUTS // 10):
            rng = Random(f"path {number}")
            odd = rng.choice(
                [value for value in ODD_VALUES if isinstance(value, str)]
                + ["{}", "{", '{"data":"/etc"}', '{"step_limit":NaN}', "[" * 5_000, "9" * 5_000]
            )
            raw = quote(odd, safe="", errors="surrogatepass")
            target = rng.choice(
                (
                    f"/v1/sessions/{raw}",
                    f"/v1/sessions/{raw}/expert",
                    f"/v1/envs/{raw}",
                    f"/v1/envs/{raw}/tasks?split=train",
                    f"/v1/envs/{ENV_ID}?options={raw}",
                    f"/v1/envs/{ENV_ID}/tasks?split={raw}",
                    f"/v1/envs/{ENV_ID}/tasks?split=train&cursor={raw}",
                    f"/v1/envs/{ENV_ID}/tasks?split=train&limit={raw}",
                    f"/{raw}",
                )
            )
            method = rng.choice(("GET", "GET", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD"))
            response = await client.request(method, target)
            assert response.status_code < 500, f"input {number}: {method} {target}"
        await serve_afresh(client)


def frame_of(number: int) -> bytes:
    """Return what an input sends over a connection: HTTP, but not quite."""
    rng = Random(f"frame {number}")
    body = json.dumps({"env_id": "steppo/KeyDoor-v0", "split": "dev", "index": 0}).encode()
    length = rng.choice(
        (len(body) - 5, len(body) + 5, 0, -1, "x", "1e3", "9" * 30, "9" * 5_000, "٣", "+5", "")
    )
    head = b"POST /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    match rng.randrange(6):
        case 0:
            return head + f"Content-Length: {length}\r\n\r\n".encode() + body
        case 1:
            lengths = f"Content-Length: {len(body)}\r\nContent-Length: {length}\r\n\r\n"
            return head + lengths.encode() + body
        case 2:
            size = rng.choice((b"zz", b"-5", b"FFFFFFFFFFFFFFFFFF", b"5;" + b"x" * 9_000, b"5"))
            chunk = size + b"\r\n" + body[:5] + b"\r\n"
            return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"
        case 3:
            name = rng.choice((b"X" * 100_000, b"X\x00", b"\xff", b"X Y", b""))
            return head + name + b": 1\r\n\r\n"
        case 4:
            line = bytearray(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            for _ in range(rng.randint(1, 10)):
                line[rng.randrange(len(line))] = rng.randrange(256)
            return bytes(line)
        case _:
            return rng.randbytes(rng.randint(1, 2_000))


def answers_to(host: str, port: int, frame: bytes) -> bytes:
    """Send bytes and nothing more; return all that comes back until the other side closes."""
    received = b""
    with socket.create_connection((host, port), REPLY_S) as connection, suppress(ConnectionError):
        connection.sendall(frame)
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65_536):
            received += part
    return received


def test_no_frame_makes_the_server_fail_or_wait(serve: Serve) -> None:
    url = httpx.URL(serve())
    for number in range(NUM_FRAMES):
        received = answers_to(url.host, url.port or 0, frame_of(number))
        statuses = re.findall(rb"^HTTP/1.1 (\d{3})", received, re.MULTILINE)
        assert all(int(status) < 500 for status in statuses), (number, received[:500])
    assert httpx.get(url.join("/healthz")).status_code == 200
    body = {"env_id": "steppo/KeyDoor-v0", "split": "dev", "index": 0, "session_id": "after"}
    assert httpx.post(url.join("/v1/sessions"), json=body).status_code == 201


KEYDOOR = {"env_id": "steppo/KeyDoor-v0", "split": "dev", "index": 0, "lease_s": 60}
FRAMES: tuple[dict[str, Any], ...] = (
    {"request_id": "r", "op": "create", "body": {**KEYDOOR, "session_id": "s"}},
    {"request_id": "r", "op": "group", "body": {**KEYDOOR, "size": 2, "group_id": "g"}},
    {
        "request_id": "r",
        "op": "step",
        "session_id": "s",
        "body": {"step_index": 0, "action": MESSAGE},
    },
    {"request_id": "r", "op": "fork", "session_id": "s", "body": {"at_step": 0, "fork_id": "f"}},
    {"request_id": "r", "op": "leases", "body": {"session_ids": ["s"], "revive": True}},
    {"request_id": "r", "op": "sessions", "body": {"sessions": [KEYDOOR]}},
    {
        "request_id": "r",
        "op": "steps",
        "body": {"steps": [{"session_id": "s", "step_index": 0, "action": "x"}]},
    },
    {"request_id": "r", "op": "get", "session_id": "s"},
    {"request_id": "r", "op": "tasks", "body": {"env_id": "steppo/KeyDoor-v0", "split": "dev"}},
)
"""A valid frame of most operations of the stream."""


def stream_frame_of(number: int) -> str:
    """Return the text of an input."""
    rng = Random(f"stream {number}")
    frame = rng.choice(KINDS)(rng.choice(FRAMES), rng)
    return frame.decode(errors="replace")


def test_no_frame_of_the_stream_goes_without_an_answer_or_makes_the_server_fail(
    serve: Serve,
) -> None:
    url = httpx.URL(serve())
    with connect(f"ws://{url.host}:{url.port}/v1/stream") as stream:
        for number in range(NUM_INPUTS // 5):
            stream.send(stream_frame_of(number))
            reply = json.loads(stream.recv(REPLY_S))
            said = f"input {number}: {str(reply)[:500]}"
            assert reply["status"] < 500, said
            assert ("problem" in reply) == (reply["status"] >= 400), said
        stream.send(json.dumps({"request_id": "last", "op": "create", "body": KEYDOOR}))
        reply = json.loads(stream.recv(REPLY_S))
    assert (reply["request_id"], reply["status"]) == ("last", 201)
