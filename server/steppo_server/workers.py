"""Where environment code runs: never on the event loop, unless it cannot block it."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread

from steppo_env.errors import DeadlineExceeded

__all__ = ["InlineWorker", "ThreadWorker", "Worker"]

ResultT = TypeVar("ResultT")


class Worker(Protocol):
    """Runs environment code for many sessions."""

    async def run(self, work: Callable[[], ResultT], deadline_s: float) -> ResultT:
        """Run `work` and return its result.

        Raises:
            DeadlineExceeded: It took longer than `deadline_s` seconds; what it did is unknown.
        """
        ...


class InlineWorker:
    """Runs the code where it stands: for environments whose steps take microseconds."""

    async def run(self, work: Callable[[], ResultT], deadline_s: float) -> ResultT:
        """Run `work`. It cannot be interrupted, so the deadline does not apply."""
        return work()


class ThreadWorker:
    """Runs the code off the event loop, one call at a time.

    One at a time because TextWorld is not thread-safe, and because pure Python gains nothing from
    more threads.
    """

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(1)

    async def run(self, work: Callable[[], ResultT], deadline_s: float) -> ResultT:
        """Run `work` in a thread. Waiting for earlier calls counts towards the deadline.

        The thread of a call that misses its deadline is abandoned. Its place is free again at once, so
        that one hung environment does not stall the others.
        """
        try:
            with anyio.fail_after(deadline_s):
                return await anyio.to_thread.run_sync(
                    work, abandon_on_cancel=True, limiter=self._limiter
                )
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"the environment did not answer within {deadline_s:g} s", deadline_s=deadline_s
            ) from error
