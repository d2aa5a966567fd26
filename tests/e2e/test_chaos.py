"""Trajectories come out as if nothing had happened, whatever dies while they are played.

The server and its workers' processes are killed, replies are lost and requests arrive twice. What is
disturbed follows from the seed: a request's fate from its own content, and a kill from the number of
calls before it. `STEPPO_CHAOS_SESSIONS=200` plays that many, by every kind of client.
"""

import json
import logging
import math
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import httpx
import numpy as np
import pytest
from pydantic import JsonValue

from steppo_client import (
    EnvClient,
    ExpertPolicy,
    HttpEnvClient,
    LocalEnvClient,
    Policy,
    RandomPolicy,
    Sampler,
    SamplerConfig,
    SessionStart,
    SessionState,
    StepTaken,
    TaskRef,
    list_task_refs,
)
from steppo_client.env_client import ExpertAdvice
from steppo_client.stream_client import StreamEnvClient
from steppo_env.errors import CapacityExceeded, TransportError, WorkerDied
from steppo_env.keys import seed_words
from steppo_env.mdp import Trajectory
from steppo_env.store import transcript
from steppo_env.wire import ActionModel, EnvDetail, EnvSummary, TaskPage
from steppo_server.journal import Journalled, open_journal

NUM_SESSIONS = int(os.environ.get("STEPPO_CHAOS_SESSIONS", "24"))
SEED = int(os.environ.get("STEPPO_CHAOS_SEED", "0"))
IS_LARGE = NUM_SESSIONS > 100
LIMIT_S = 50.0 + 2.0 * NUM_SESSIONS

ENV_IDS = (
    "steppo/KeyDoor-v0",
    "steppo/MultihopQA-v0",
    "steppo/PaperSearch-v0",
    "steppo/TextWorld-v0",
)
POLICIES = (ExpertPolicy(), RandomPolicy())
NUM_TASKS = 3
"""Of each environment; more sessions are more samples of them."""
PROCESSES = {"steppo/PaperSearch-v0": 1, "steppo/TextWorld-v0": 2 if IS_LARGE else 1}
NUM_SERVER_KILLS = 3
NUM_WORKER_KILLS = 3
LOST_SHARE = 0.05
DOUBLED_SHARE = 0.05
START_S = 40.0
STOP_S = 15.0

ResultT = TypeVar("ResultT")

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(10 + 2 * LIMIT_S),
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc"),
]


@dataclass
class Server:
    """A `steppo serve` that can be killed and started again on the same port and journal."""

    folder: Path
    port: int
    process: "subprocess.Popen[str] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def journal(self) -> str:
        return f"sqlite:///{self.folder / 'journal.db'}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    @property
    def worker_pids(self) -> list[int]:
        """The processes that the server has started."""
        if self.process is None:
            return []
        found: set[int] = set()
        for children in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            try:
                found.update(map(int, children.read_text().split()))
            except (FileNotFoundError, ProcessLookupError):
                continue  # that thread has just ended
        return sorted(found)

    def start(self) -> None:
        environ = {
            **os.environ,
            "STEPPO_SERVER_JOURNAL": self.journal,
            "STEPPO_SERVER_PROCESSES": json.dumps(PROCESSES),
        }
        command = [sys.executable, "-m", "steppo_client", "serve", "--port", str(self.port)]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=environ
            )
        assert self.process.stdout is not None
        watchdog = threading.Timer(START_S, self.process.kill)
        watchdog.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        assert line == f"serving {self.url}\n", self.log

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def end(self) -> int:
        """Return the exit code of a server that was killed, or asked to stop."""
        if self.process is None:
            return 0
        assert self.process.stdout is not None
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self.process.stdout.close()
            self.process = None


@dataclass
class Chaos:
    """Kills at given numbers of replies, and says what becomes of each request.

    Attributes:
        server_kills: Numbers of replies after which the server is killed, in order.
        worker_kills: The same for one of its processes.
        events: What was done, for who reads of a failure.
    """

    server: Server
    server_kills: list[int]
    worker_kills: list[int]
    rng: np.random.Generator
    num_replies: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    events: list[str] = field(default_factory=list)
    is_down: anyio.Event = field(default_factory=anyio.Event)

    @classmethod
    def spread(cls, server: Server, num_replies: int) -> "Chaos":
        """Return kills at random moments of a run with at least so many replies."""
        rng = np.random.default_rng(seed_words("chaos", SEED, num_replies))
        moments = rng.choice(
            np.arange(num_replies // 20, num_replies * 4 // 5),
            NUM_SERVER_KILLS + NUM_WORKER_KILLS,
            replace=False,
        )
        first, rest = moments[:NUM_SERVER_KILLS], moments[NUM_SERVER_KILLS:]
        return cls(server, sorted(map(int, first)), sorted(map(int, rest)), rng)

    def count_reply(self) -> None:
        """Count a reply, and kill what is to be killed by now."""
        self.num_replies += 1
        if self.server_kills and self.num_replies >= self.server_kills[0]:
            if not self.is_down.is_set():
                self.server_kills.pop(0)
                self.server.kill()
                self._note("server")
                self.is_down.set()
        elif self.worker_kills and self.num_replies >= self.worker_kills[0]:
            # None just after a restart: then it comes with a later reply.
            pids = self.server.worker_pids
            if pids:
                self.worker_kills.pop(0)
                os.kill(pids[int(self.rng.integers(len(pids)))], signal.SIGKILL)
                self._note("worker")

    async def restart_the_server(self) -> None:
        """Start the server again each time that it was killed; runs until it is cancelled."""
        while True:
            await self.is_down.wait()
            assert await anyio.to_thread.run_sync(self.server.end) == -signal.SIGKILL
            await anyio.to_thread.run_sync(self.server.start)
            self.is_down = anyio.Event()

    def fate(self, request: httpx.Request, attempt: int) -> str:
        """Return `lost`, `doubled` or `""`."""
        content = request.content.decode()
        words = seed_words("fate", SEED, request.method, request.url.path, content, attempt)
        share = words[0] / 2**32
        if share < LOST_SHARE:
            return "lost"
        return "doubled" if share < LOST_SHARE + DOUBLED_SHARE else ""

    def _note(self, killed: str) -> None:
        self.counts[killed] += 1
        self.events.append(f"{killed} killed after {self.num_replies} replies")


class Disturbed(httpx.AsyncBaseTransport):
    """A network that loses replies and delivers requests twice."""

    def __init__(self, chaos: Chaos) -> None:
        self._chaos = chaos
        self._network = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=100))
        self._attempts: Counter[tuple[str, str, bytes]] = Counter()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        key = (request.method, request.url.path, request.content)
        self._attempts[key] += 1
        fate = self._chaos.fate(request, self._attempts[key])
        self._chaos.counts[fate] += 1
        num_times = 2 if fate == "doubled" else 1
        outcomes: list[httpx.Response | httpx.TransportError] = []
        async with anyio.create_task_group() as group:
            for _ in range(num_times):
                group.start_soon(self._deliver, request, outcomes)
        outcome = httpx.ReadError("the reply was lost") if fate == "lost" else outcomes[0]
        if isinstance(outcome, httpx.TransportError):
            raise outcome
        return outcome

    async def aclose(self) -> None:
        await self._network.aclose()

    async def _deliver(
        self, request: httpx.Request, outcomes: list[httpx.Response | httpx.TransportError]
    ) -> None:
        """Send a copy of a request and append what came of it."""
        copy = httpx.Request(
            request.method,
            request.url,
            headers=request.headers,
            content=request.content,
            extensions=request.extensions,
        )
        try:
            response = await self._network.handle_async_request(copy)
            try:
                content = await response.aread()
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            outcomes.append(error)
            return
        outcomes.append(
            httpx.Response(response.status_code, headers=response.headers, content=content)
        )


class Patient(EnvClient):
    """Sends a request again until it is answered: also while the server is away.

    Sessions are left open, so that the journal can be looked at when all have been played.
    """

    def __init__(self, client: EnvClient, chaos: Chaos) -> None:
        self.client = client
        self._chaos = chaos
        self.finished: list[str] = []

    async def environments(self) -> tuple[EnvSummary, ...]:
        return await self._insist(self.client.environments)

    async def describe(
        self, env_id: str, options: Mapping[str, JsonValue] | None = None
    ) -> EnvDetail:
        return await self._insist(lambda: self.client.describe(env_id, options))

    async def tasks(
        self,
        env_id: str,
        split: str,
        *,
        cursor: str | None = None,
        limit: int = 1000,
        options: Mapping[str, JsonValue] | None = None,
    ) -> TaskPage:
        return await self._insist(
            lambda: self.client.tasks(env_id, split, cursor=cursor, limit=limit, options=options)
        )

    async def create(self, start: SessionStart) -> SessionState:
        return await self._insist(lambda: self.client.create(start))

    async def step(self, session_id: str, step_index: int, action: ActionModel) -> StepTaken:
        return await self._insist(lambda: self.client.step(session_id, step_index, action))

    async def expert(self, session_id: str) -> ExpertAdvice:
        return await self._insist(lambda: self.client.expert(session_id))

    async def delete(self, session_id: str) -> None:
        self.finished.append(session_id)

    async def delete_all(self) -> None:
        """Close the sessions that have been played."""
        async with anyio.create_task_group() as group:
            for session_id in self.finished:
                group.start_soon(self._insist, lambda it=session_id: self.client.delete(it))

    async def close(self) -> None:
        """Nothing: who made the client closes it."""

    async def _insist(self, call: Callable[[], Awaitable[ResultT]]) -> ResultT:
        until = time.monotonic() + LIMIT_S
        while True:
            try:
                result = await call()
            except (TransportError, CapacityExceeded, WorkerDied):
                if time.monotonic() > until:
                    raise
                await anyio.sleep(0.05)
            else:
                self._chaos.count_reply()
                return result


CLIENTS: dict[str, Callable[[Chaos], EnvClient]] = {
    "joined": lambda chaos: HttpEnvClient(
        chaos.server.url, transport=Disturbed(chaos), timeout_s=LIMIT_S
    ),
    "single": lambda chaos: HttpEnvClient(
        chaos.server.url, transport=Disturbed(chaos), timeout_s=LIMIT_S, coalesce=False
    ),
    # Its replies are lost with the server only.
    "stream": lambda chaos: StreamEnvClient(
        chaos.server.url.replace("http", "ws", 1), timeout_s=LIMIT_S
    ),
}
PLAYED_BY = list(CLIENTS) if IS_LARGE else ["single"]


async def tasks_of(client: EnvClient) -> list[TaskRef]:
    """Return the tasks, of all environments."""
    return [
        ref for env_id in ENV_IDS for ref in await list_task_refs(client, env_id, "dev", NUM_TASKS)
    ]


async def play(client: EnvClient, tasks: list[TaskRef]) -> dict[str, Trajectory]:
    """Play the tasks with both policies, all at once; return the trajectories by id."""
    found: dict[str, Trajectory] = {}

    async def emit(trajectory: Trajectory) -> None:
        assert trajectory.trajectory_id not in found
        found[trajectory.trajectory_id] = trajectory

    async def sample(policy: Policy) -> None:
        config = SamplerConfig(
            run_id=f"chaos-{policy.name}",
            seed=SEED,
            group_size=math.ceil(NUM_SESSIONS / len(POLICIES) / len(tasks)),
            concurrency=NUM_SESSIONS,
            step_deadline_s=LIMIT_S,
        )
        await Sampler(client, policy, config).run(tasks, emit)

    async with anyio.create_task_group() as group:
        for policy in POLICIES:
            group.start_soon(sample, policy)
    return found


def check_journalled(trajectory: Trajectory, journalled: Journalled | None) -> None:
    """Check that the journal has each step of a trajectory, once and as it was."""
    assert journalled is not None, trajectory.trajectory_id
    assert [step.step_index for step in journalled.steps] == [*range(len(trajectory.steps))]
    assert [step.problem for step in journalled.steps] == [None] * len(trajectory.steps)
    taken = [step.trace_key for step in journalled.steps]
    assert taken == [step.trace_key for step in trajectory.steps]
    assert journalled.steps[-1].terminated == trajectory.terminated
    assert journalled.steps[-1].truncated == trajectory.truncated


@contextmanager
def told(chaos: Chaos) -> Iterator[None]:
    """Say on a failure what was done, how to do it again, and what the server logged."""
    try:
        yield
    except BaseException as error:
        error.add_note(
            f"Replay: STEPPO_CHAOS_SEED={SEED} STEPPO_CHAOS_SESSIONS={NUM_SESSIONS} "
            f"python -m pytest {Path(__file__).name}\n"
            f"Done: {'; '.join(chaos.events)}; requests: {dict(chaos.counts)}\n"
            f"The server's log ends:\n{chaos.server.log[-4000:]}"
        )
        raise


def free_port() -> int:
    """Return a port below those that connections get, on which one to a dead server would connect
    to itself and hold it.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a hundred ports are all in use")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Return a server that runs, and leave none behind."""
    server = Server(tmp_path, free_port())
    server.start()
    try:
        yield server
    finally:
        server.kill()
        server.end()


@pytest.mark.parametrize("kind", PLAYED_BY)
async def test_no_step_is_lost_or_doubled_whatever_dies(
    kind: str, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "stamina")  # it tells of each request that is sent again
    local = LocalEnvClient()
    async with local:
        tasks = await tasks_of(local)
        undisturbed = await play(local, tasks)
    # A creation and steps, for each of which an expert is asked as well.
    asked = {"expert": 2, "random": 1}
    chaos = Chaos.spread(
        server, sum(1 + asked[one.policy] * len(one.steps) for one in undisturbed.values())
    )
    with told(chaos):
        async with CLIENTS[kind](chaos) as remote, anyio.create_task_group() as restarts:
            restarts.start_soon(chaos.restart_the_server)
            client = Patient(remote, chaos)
            assert await tasks_of(client) == tasks
            disturbed = await play(client, tasks)

            assert disturbed.keys() == undisturbed.keys()
            for trajectory_id, trajectory in disturbed.items():
                assert trajectory.error is None
                assert transcript(trajectory) == transcript(undisturbed[trajectory_id])
            async with open_journal(server.journal) as journal:
                for trajectory in disturbed.values():
                    journalled = await journal.load(f":{trajectory.trajectory_id}")
                    check_journalled(trajectory, journalled)
                await client.delete_all()
                for trajectory_id in disturbed:
                    assert await journal.load(f":{trajectory_id}") is None
            restarts.cancel_scope.cancel()
        assert (chaos.counts["server"], chaos.counts["worker"]) == (
            NUM_SERVER_KILLS,
            NUM_WORKER_KILLS,
        )
        if kind != "stream":
            assert chaos.counts["lost"] > 0
            assert chaos.counts["doubled"] > 0
        assert server.process is not None
        server.process.terminate()
        assert server.end() == 0
