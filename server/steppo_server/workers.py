"""Where environment code runs: never on the event loop, unless it cannot block it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Protocol, TypeVar

import anyio

from steppo_env.errors import CapacityExceeded, DeadlineExceeded

__all__ = ["InlineWorker", "ThreadWorker", "Worker"]

RETRY_AFTER_S = 5

ResultT = TypeVar("ResultT")


class Worker(Protocol):
    """Runs environment code for many sessions."""

    async def run(self, work: Callable[[], ResultT], deadline_s: float) -> ResultT:
        """Run `work` and return its result.

        Raises:
            CapacityExceeded: Its turn did not come in time; it has not begun and never will.
            DeadlineExceeded: It took longer than `deadline_s` seconds; what it did is unknown.
        """
        ...


class InlineWorker:
    """Runs the code where it stands: for environments whose steps take microseconds."""

    async def run(self, work: Callable[[], ResultT], deadline_s: float) -> ResultT:
        """Run `work`. It cannot be interrupted, so the deadline does not apply."""
        return work()


class ThreadWorker:
    """Runs the code off the event loop on one thread, one call after another.

    One at a time because TextWorld is not thread-safe, and because pure Python gains nothing from
    more threads. The thread is a daemon: code that hangs must not keep the process from ending.

    Args:
        queue_deadline_s: Longest wait for earlier calls, in seconds. It does not count towards the
            deadline of the call itself: a hung call must not fail the ones that wait behind it.
    """

    def __init__(self, queue_deadline_s: float) -> None:
        self._queue_deadline_s = queue_deadline_s
        self._turn = anyio.Lock()
        self._jobs: SimpleQueue[Callable[[], None] | None] | None = None

    async def run(self, work: Callable[[], ResultT], deadline_s: float) -> ResultT:
        """Run `work` in the thread. Once begun it is waited for, also when the caller is cancelled.

        A thread whose call misses its deadline is left to itself; the next call gets a new one, so
        that one hung environment does not stall the others.
        """
        with anyio.move_on_after(self._queue_deadline_s) as queued:
            await self._turn.acquire()
        if queued.cancelled_caught:
            raise CapacityExceeded(
                f"the environment was busy for {self._queue_deadline_s:g} s with other sessions; "
                "nothing was done, try again",
                retry_after_s=RETRY_AFTER_S,
            )
        try:
            future = self._submit(work)
            try:
                with anyio.move_on_after(deadline_s, shield=True):
                    return await future
            finally:
                if future.cancelled():
                    self.close()
            raise DeadlineExceeded(
                f"the environment did not answer within {deadline_s:g} s", deadline_s=deadline_s
            )
        finally:
            self._turn.release()

    def close(self) -> None:
        """Let the thread end after what it does now."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None

    def _submit(self, work: Callable[[], ResultT]) -> "asyncio.Future[ResultT]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ResultT] = loop.create_future()

        def settle(outcome: Callable[[], None]) -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
                loop.call_soon_threadsafe(lambda: None if future.done() else outcome())

        def job() -> None:
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
                # No future can carry a StopIteration.
                raised = RuntimeError(repr(error)) if isinstance(error, StopIteration) else error
                settle(partial(future.set_exception, raised))
            else:
                settle(partial(future.set_result, result))

        if self._jobs is None:
            jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
            Thread(target=_do, args=[jobs], name="steppo-worker", daemon=True).start()
            self._jobs = jobs
        self._jobs.put(job)
        return future


def _do(jobs: "SimpleQueue[Callable[[], None] | None]") -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # or an idle thread would keep the last session's environment
