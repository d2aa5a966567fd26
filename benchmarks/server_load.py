"""The load: sessions that each take one step after another, over sockets that cost next to nothing.

Run by `benchmarks/server.py` as `python -m benchmarks.server_load JSON`, so that it is in a process of
its own. Prints one line of JSON: the seconds of processor that each step took in the server, and in the
client where that is what is measured.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop
from pydantic import JsonValue
from websockets.asyncio.client import connect

from steppo_env.registry import make

ROOT = Path(__file__).resolve().parent.parent
WARM_UP_STEPS = 4
BATCH = 64
CPU_CLOCK = 2
"""What makes a process's id its clock on Linux, as in `clock_getcpuclockid`."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to do.

    Attributes:
        way: `echo` and `single` are a request a step, `batch` one for 64 steps, `stream` a frame a step,
            `client` the joining HttpEnvClient; `begin` begins the sessions and
            no more; `alone` plays in this process, without a server.
        num_sessions: All of them at the same time.
        num_steps: Of each session, after WARM_UP_STEPS.
        pid: The server's process.
        prefix: Of the session ids.
        num_tasks: Sessions take the first tasks of dev in turn, each with a seed of its own.
        actions: What all sessions do, over and over.
    """

    way: str
    url: str
    pid: int
    num_sessions: int
    num_steps: int
    prefix: str
    env_id: str = "steppo/KeyDoor-v0"
    num_tasks: int = 100
    options: Mapping[str, JsonValue] = field(default_factory=lambda: {"step_limit": 1000})
    actions: Sequence[str] = ("<act> go north </act>", "<act> go south </act>")

    @property
    def session_ids(self) -> list[str]:
        """The ids of all sessions."""
        return [f"{self.prefix}-{number}" for number in range(self.num_sessions)]

    def action(self, step_index: int) -> str:
        """Return the action of a step."""
        return self.actions[step_index % len(self.actions)]


class Connection(asyncio.Protocol):
    """An HTTP/1.1 connection with one request at a time."""

    def __init__(self) -> None:
        self._received = b""
        self._reply: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own has another base

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        _, found, rest = head.lower().partition(b"\r\ncontent-length:")
        if not found:
            raise SystemExit(f"a reply has no length: {head!r}")
        if len(body) < int(rest.partition(b"\r\n")[0]):
            return
        self._received = b""
        assert self._reply is not None
        if head[9:10] == b"2":
            self._reply.set_result(body)
        else:
            self._reply.set_exception(SystemExit(f"{head!r} {body[:500]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(SystemExit(f"the server closed the connection: {exc}"))

    async def post(self, path: str, body: bytes) -> bytes:
        """Send a request and return the body of its reply."""
        assert self._transport is not None
        self._reply = asyncio.get_running_loop().create_future()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self._transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return await self._reply

    def close(self) -> None:
        """Close it."""
        if self._transport is not None:
            self._transport.close()


Steps = Callable[[int, int], Awaitable[None]]
"""Takes the steps of every session from one index up to another."""


async def connected(url: str) -> Connection:
    """Return a new connection."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    return (await loop.create_connection(Connection, str(parts.hostname), parts.port or 80))[1]


async def begin(load: Load) -> None:
    """Begin all sessions."""
    connection = await connected(load.url)
    sessions = [
        {
            "env_id": load.env_id,
            "split": "dev",
            "index": number % load.num_tasks,
            "seed": number,
            "options": load.options,
            "session_id": session_id,
        }
        for number, session_id in enumerate(load.session_ids)
    ]
    for start in range(0, len(sessions), BATCH):
        body = json.dumps({"sessions": sessions[start : start + BATCH]}).encode()
        reply = json.loads(await connection.post("/v1/batch/sessions", body))
        _check([item["status"] for item in reply["results"]], 201)
    connection.close()


def _check(statuses: list[int], wanted: int) -> None:
    if set(statuses) != {wanted}:
        raise SystemExit(f"the server answered {sorted(set(statuses))}, not {wanted}")


async def single(load: Load, first: int, end: int) -> None:
    """Take each step with a request of its own, each session over a connection of its own."""

    async def play(session_id: str) -> None:
        connection = await connected(load.url)
        path = f"/v1/sessions/{session_id}/steps"
        for at in range(first, end):
            body = {"step_index": at, "action": load.action(at)}
            await connection.post(path, json.dumps(body).encode())
        connection.close()

    await asyncio.gather(*map(play, load.session_ids))


async def batch(load: Load, first: int, end: int) -> None:
    """Take the steps of 64 sessions with one request."""

    async def play(session_ids: list[str]) -> None:
        connection = await connected(load.url)
        for at in range(first, end):
            taken = {"step_index": at, "action": load.action(at)}
            steps = [{"session_id": session_id, **taken} for session_id in session_ids]
            reply = await connection.post("/v1/batch/steps", json.dumps({"steps": steps}).encode())
            if reply.count(b'{"status":200,') != len(steps):
                raise SystemExit(f"not all steps were taken: {reply[:500]!r}")
        connection.close()

    names = load.session_ids
    groups = [names[start : start + BATCH] for start in range(0, len(names), BATCH)]
    await asyncio.gather(*map(play, groups))


async def stream(load: Load, first: int, end: int) -> None:
    """Take all steps over one socket; each session sends its next when the last is answered."""
    names = load.session_ids

    def frame(number: int, at: int) -> str:
        body = {"step_index": at, "action": load.action(at)}
        asked = {"op": "step", "session_id": names[number], "body": body}
        return json.dumps({"request_id": f"{number}.{at}", **asked})

    url = load.url.replace("http", "ws", 1) + "/v1/stream"
    async with connect(url, compression=None, max_size=None) as socket:
        for number in range(len(names)):
            await socket.send(frame(number, first))
        for _ in range(len(names) * (end - first)):
            head, _, rest = str(await socket.recv()).partition('","status":')
            if not rest.startswith("200"):
                raise SystemExit(f"{head} {rest[:500]}")
            answered, _, at = head.partition(':"')[2].partition(".")
            if int(at) + 1 < end:
                await socket.send(frame(int(answered), int(at) + 1))


async def client(load: Load, first: int, end: int) -> None:
    """Take the steps of as many agents as there are sessions through one EnvClient."""
    from steppo_client import HttpEnvClient

    async def play(session_id: str) -> None:
        for at in range(first, end):
            await agents.step(session_id, at, load.action(at))

    async with HttpEnvClient(load.url) as agents:
        await asyncio.gather(*map(play, load.session_ids))


def alone(load: Load) -> float:
    """Return the processor seconds that a step takes in environments of this very process."""
    envs = [make(load.env_id, **load.options) for _ in range(load.num_sessions)]
    for number, env in enumerate(envs):
        env.start(env.tasks.at("dev", number % load.num_tasks), number)
    for at in range(WARM_UP_STEPS):
        for env in envs:
            env.advance(load.action(at))
    begun_s = time.process_time()
    for at in range(WARM_UP_STEPS, WARM_UP_STEPS + load.num_steps):
        for env in envs:
            env.advance(load.action(at))
    return (time.process_time() - begun_s) / (load.num_sessions * load.num_steps)


WAYS = {"echo": single, "single": single, "batch": batch, "stream": stream, "client": client}


def cpu_s(pid: int) -> float:
    """Return the processor seconds that a process has had so far, all threads together."""
    return time.clock_gettime(~pid << 3 | CPU_CLOCK)


async def measure(load: Load) -> dict[str, float]:
    """Return seconds per step: of the server's processor, of this process's, and on the wall."""
    if load.way == "alone":
        return {"own_s": alone(load)}
    if load.way != "echo":
        await begin(load)
    if load.way == "begin":
        return {}
    take = partial(WAYS[load.way], load)
    await take(0, WARM_UP_STEPS)
    server_s, own_s, wall_s = cpu_s(load.pid), time.process_time(), time.perf_counter()
    await take(WARM_UP_STEPS, WARM_UP_STEPS + load.num_steps)
    num_steps = load.num_steps * load.num_sessions
    return {
        "server_s": (cpu_s(load.pid) - server_s) / num_steps,
        "own_s": (time.process_time() - own_s) / num_steps,
        "wall_s": (time.perf_counter() - wall_s) / num_steps,
    }


def run(load: Load) -> dict[str, float]:
    """Put the load onto a server, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.server_load", json.dumps(asdict(load))]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=600, check=False)
    if done.returncode:
        raise SystemExit(f"the load {load.way} failed")
    found: dict[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    found = uvloop.run(measure(Load(**json.loads(sys.argv[1]))))
    print(json.dumps(found))  # noqa: T201
