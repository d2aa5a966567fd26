"""Runs environment code in a process of its own: for environments whose steps compute."""

import logging
import math
import time
from typing import Any

import anyio

from steppo_env.catalogue import Catalogue
from steppo_env.errors import DeadlineExceeded, WorkerDied
from steppo_server.engines.protocol import EngineKind, Worker, WorkerLoad
from steppo_server.engines.spawned import HostLost, SpawnedHost
from steppo_server.engines.turns import Turns
from steppo_server.logs import LogFormat

__all__ = ["ProcessWorker"]

CLOSE_DEADLINE_S = 2.0
QUICK_DEATH_S = 10.0
MAX_QUICK_DEATHS = 5
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 10.0

logger = logging.getLogger("steppo.server")


class ProcessWorker(Worker):
    """A host in a process that is replaced when it dies, and killed when a call of it hangs.

    A process that dies within ten seconds of its start, or before it is ready, dies quickly. From the
    second quick death on its successor waits, twice as long each time; after five in a row calls fail at
    once until the wait is over, and the error says why.

    Args:
        env_names: What the process loads before it takes a call.
        queue_deadline_s: Longest wait of a call for its turn, in seconds.
        start_deadline_s: Longest time for a process to become ready, in seconds.
        max_expected_wait_s: A call that must expect a longer wait is refused at once.
        log_format: How its lines on stderr look.
    """

    kind = EngineKind.PROCESS

    def __init__(
        self,
        name: str,
        catalogue: Catalogue,
        env_names: tuple[str, ...],
        *,
        queue_deadline_s: float,
        start_deadline_s: float,
        max_expected_wait_s: float = math.inf,
        log_format: LogFormat = LogFormat.TEXT,
    ) -> None:
        super().__init__(name)
        self._catalogue = catalogue
        self._env_names = env_names
        self._start_deadline_s = start_deadline_s
        self._log_format = log_format
        self._turns = Turns(queue_deadline_s, max_expected_wait_s)
        self._host: SpawnedHost | None = None
        self._ending: list[SpawnedHost] = []
        self._num_quick_deaths = 0
        self._not_before = 0.0

    @property
    def load(self) -> WorkerLoad:
        return self._load_of(self._turns)

    @property
    def pid(self) -> int | None:
        """The id of the process; None while there is none."""
        return None if self._host is None else self._host.pid

    def start(self) -> None:
        """Start the process ahead of the first call, unless it runs or has to wait."""
        if self._host is None and not self._is_closed and self._wait_s() <= 0:
            self._spawn()

    async def close(self) -> None:
        self._is_closed = True
        host, self._host = self._host, None
        self._held.clear()
        if host is not None:
            await host.end(CLOSE_DEADLINE_S)
        for ending in self._ending:
            await ending.ended(CLOSE_DEADLINE_S)

    async def _run(self, method: str, args: tuple[Any, ...], deadline_s: float) -> Any:
        async with self._turns.turn(is_urgent=method == "close"):
            self._check_open()
            host = await self._ready()
            is_done, result = await self._ask(host, method, args, deadline_s)
        if is_done:
            return result
        raise result

    async def _ask(
        self, host: SpawnedHost, method: str, args: tuple[Any, ...], deadline_s: float
    ) -> tuple[bool, Any]:
        is_answered = False
        try:
            with anyio.move_on_after(deadline_s, shield=True):
                answer = await host.ask(method, args)
                is_answered = True
                return answer
        except HostLost:
            is_answered = True  # there is nothing left to kill
            raise WorkerDied(
                f"the process of {self.name} died during {method}; rebuild the session and try again",
                was_begun=True,
            ) from None
        finally:
            if not is_answered:
                self._replace(host)
        raise DeadlineExceeded(
            f"the environment did not answer within {deadline_s:g} s", deadline_s=deadline_s
        )

    async def _ready(self) -> SpawnedHost:
        """Return the process, started anew where there is none."""
        if self._host is None:
            await self._wait_out()
            self._check_open()
            self._spawn()
        host = self._host
        is_ready = host is not None and host.is_ready
        if host is not None and not is_ready:
            with anyio.move_on_after(self._start_deadline_s) as waited:
                is_ready = await host.started()
            if waited.cancelled_caught:
                self._fail(host, f"was not ready after {self._start_deadline_s:g} s")
        if host is None or not is_ready:
            raise self._unusable()
        return host

    async def _wait_out(self) -> None:
        """Wait before a successor, or refuse after too many quick deaths."""
        wait_s = self._wait_s()
        if wait_s > 0 and self._num_quick_deaths >= MAX_QUICK_DEATHS:
            raise self._unusable()
        await anyio.sleep(max(0.0, wait_s))

    def _wait_s(self) -> float:
        return self._not_before - time.monotonic()

    def _spawn(self) -> None:
        try:
            self._host = SpawnedHost(
                self._catalogue, self._env_names, self._on_lost, self._log_format
            )
        except OSError as error:
            logger.error("cannot start the process of %s: %s", self.name, error)
            self._count_death(is_quick=True)

    def _on_lost(self) -> None:
        """The process died by itself."""
        host = self._host
        assert host is not None
        lived_s = time.monotonic() - host.started_at
        self._drop(host, f"died after {lived_s:.1f} s")
        self._count_death(is_quick=lived_s < QUICK_DEATH_S or not host.has_been_ready)
        self.start()

    def _fail(self, host: SpawnedHost, why: str) -> None:
        """Give up a process that does not become ready."""
        host.kill()
        self._drop(host, why)
        self._count_death(is_quick=True)

    def _replace(self, host: SpawnedHost) -> None:
        """Kill a process whose call hangs, and start its successor."""
        host.kill()
        if host is self._host:
            self._drop(host, "hung and was killed")
        self.start()

    def _drop(self, host: SpawnedHost, why: str) -> None:
        """Begin the next generation, without this process."""
        # An exit code is there when the process ended by itself.
        logger.error("process %d of %s %s (exit code %s)", host.pid, self.name, why, host.exit_code)
        self._ending = [ending for ending in self._ending if ending.exit_code is None]
        self._ending.append(host)
        self._host = None
        self._lose()

    def _count_death(self, *, is_quick: bool) -> None:
        self._num_quick_deaths = self._num_quick_deaths + 1 if is_quick else 0
        backoff_s = 0.0
        if self._num_quick_deaths > 1:
            doublings = min(self._num_quick_deaths - 2, 30)
            backoff_s = min(FIRST_BACKOFF_S * 2**doublings, MAX_BACKOFF_S)
        self._not_before = time.monotonic() + backoff_s

    def _unusable(self) -> WorkerDied:
        return WorkerDied(
            f"the process of {self.name} died {self._num_quick_deaths} times in a row soon after its "
            "start; the server's log says more",
            was_begun=False,
            retry_after_s=round(max(1.0, self._wait_s())),
        )
