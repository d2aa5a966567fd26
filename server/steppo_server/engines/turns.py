"""The queue before a worker: one call at a time, in the order they came, none waiting for ever."""

import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from steppo_env.errors import CapacityExceeded

__all__ = ["RETRY_AFTER_S", "Turns"]

RETRY_AFTER_S = 5
KEPT_DELAYS = 100


class Turns:
    """Gives one caller at a time the turn.

    Args:
        queue_deadline_s: Longest wait, in seconds. It does not count towards the deadline of the call
            itself: a hung call must not fail the ones that wait behind it.
    """

    def __init__(self, queue_deadline_s: float) -> None:
        self._queue_deadline_s = queue_deadline_s
        self._lock = anyio.Lock()
        self._since: dict[object, float] = {}
        self._delays_s: deque[float] = deque(maxlen=KEPT_DELAYS)

    @property
    def num_waiting(self) -> int:
        """Number of callers that wait."""
        return len(self._since)

    @property
    def oldest_wait_s(self) -> float:
        """Seconds that the first in the queue has waited; 0 when nobody waits."""
        return time.monotonic() - next(iter(self._since.values())) if self._since else 0.0

    @property
    def delays_s(self) -> tuple[float, ...]:
        """What the last callers waited before their turn, in seconds, the latest last."""
        return tuple(self._delays_s)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the turn.

        Raises:
            CapacityExceeded: It did not come in time.
        """
        await self._wait()
        try:
            yield
        finally:
            self._lock.release()

    async def _wait(self) -> None:
        ticket, since = object(), time.monotonic()
        self._since[ticket] = since
        try:
            with anyio.move_on_after(self._queue_deadline_s) as queued:
                await self._lock.acquire()
        finally:
            del self._since[ticket]
        if queued.cancelled_caught:
            raise CapacityExceeded(
                f"the environment was busy for {self._queue_deadline_s:g} s with other sessions; "
                "nothing was done, try again",
                retry_after_s=RETRY_AFTER_S,
            )
        self._delays_s.append(time.monotonic() - since)
