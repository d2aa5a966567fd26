"""Runs environment code on a thread: for environments whose steps wait for something."""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

import anyio
import anyio.to_thread

from steppo_env.catalogue import Catalogue
from steppo_env.errors import DeadlineExceeded
from steppo_server.engines.protocol import EngineKind, Worker, WorkerLoad, perform
from steppo_server.engines.turns import Turns
from steppo_server.host import EnvHost

__all__ = ["ThreadWorker"]

CLOSE_DEADLINE_S = 2.0

Job = Callable[[EnvHost], None]


class _HostThread:
    """A daemon thread with a host of its own; code that hangs must not keep the process from ending."""

    def __init__(self, name: str, catalogue: Catalogue) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = Thread(target=_do, args=[self._jobs, catalogue], name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        self._jobs.put(job)

    def end(self) -> None:
        """Let the thread close its episodes and end, after what it does now."""
        self._jobs.put(None)

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)


class ThreadWorker(Worker):
    """A host on one thread, for as long as no call of it hangs.

    One thread because environments need not be thread-safe, and because pure Python gains nothing from
    more. A thread whose call misses its deadline is left to itself, with its host and every episode in
    it; when the call returns after all, the episodes are closed. The next call gets a new thread.

    Args:
        queue_deadline_s: Longest wait of a call for its turn, in seconds.
        max_expected_wait_s: A call that must expect a longer one is refused at once.
    """

    kind = EngineKind.THREAD

    def __init__(
        self,
        name: str,
        catalogue: Catalogue,
        *,
        queue_deadline_s: float,
        max_expected_wait_s: float = math.inf,
    ) -> None:
        super().__init__(name)
        self._catalogue = catalogue
        self._turns = Turns(queue_deadline_s, max_expected_wait_s)
        self._thread: _HostThread | None = None

    @property
    def load(self) -> WorkerLoad:
        return self._load_of(self._turns)

    async def close(self) -> None:
        self._is_closed = True
        thread, self._thread = self._thread, None
        self._held.clear()
        if thread is not None:
            thread.end()
            await anyio.to_thread.run_sync(thread.join, CLOSE_DEADLINE_S)

    async def _run(self, method: str, args: tuple[Any, ...], deadline_s: float) -> Any:
        async with self._turns.turn(is_urgent=method == "close"):
            self._check_open()
            if self._thread is None:
                self._thread = _HostThread(f"steppo-{self.name}", self._catalogue)
            future = _submit(self._thread, method, args)
            try:
                with anyio.move_on_after(deadline_s, shield=True):
                    return await future
            finally:
                if future.cancelled():
                    self._abandon()
            raise DeadlineExceeded(
                f"the environment did not answer within {deadline_s:g} s", deadline_s=deadline_s
            )

    def _abandon(self) -> None:
        if self._thread is not None:
            self._thread.end()
            self._thread = None
        self._lose()


def _submit(thread: _HostThread, method: str, args: tuple[Any, ...]) -> "asyncio.Future[Any]":
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if future.done() else outcome())

    def job(host: EnvHost) -> None:
        try:
            result = perform(host, method, args)
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            settle(partial(future.set_exception, error))
        else:
            settle(partial(future.set_result, result))

    thread.submit(job)
    return future


def _do(jobs: "SimpleQueue[Job | None]", catalogue: Catalogue) -> None:
    host = EnvHost(catalogue)
    while (job := jobs.get()) is not None:
        job(host)
        del job  # or an idle thread would keep the last call's arguments
    host.close_all()
