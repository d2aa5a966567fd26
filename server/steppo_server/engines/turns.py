"""The queue before a worker: one call at a time, in the order they came, none waiting for ever."""

import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median

import anyio

from steppo_env.errors import CapacityExceeded

__all__ = ["RETRY_AFTER_S", "Turns"]

RETRY_AFTER_S = 5
KEPT_DELAYS = 100
KEPT_HOLDS = 25
MIN_HOLDS = 5
"""Calls after which their usual length is known."""


class Turns:
    """Gives one caller at a time the turn.

    Args:
        queue_deadline_s: Longest wait, in seconds. It does not count towards the deadline of the call
            itself: a hung call must not fail the ones that wait behind it.
        max_expected_wait_s: A caller who must expect to wait longer is refused at once, in seconds.

    Attributes:
        num_turns: Turns given so far.
        total_wait_s: What all of them waited, in seconds.
    """

    def __init__(self, queue_deadline_s: float, max_expected_wait_s: float = math.inf) -> None:
        self.num_turns = 0
        self.total_wait_s = 0.0
        self._queue_deadline_s = queue_deadline_s
        self._max_expected_wait_s = max_expected_wait_s
        self._holds_s: deque[float] = deque(maxlen=KEPT_HOLDS)
        self._lock = anyio.Lock(fast_acquire=True)
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

    @property
    def expected_wait_s(self) -> float:
        """What the next caller will wait if calls go on to take what they usually take, in seconds.

        The median of the last calls: one that loads data says nothing about the others.
        """
        if not self._lock.locked() or len(self._holds_s) < MIN_HOLDS:
            return 0.0
        return (self.num_waiting + 1) * median(self._holds_s)

    @asynccontextmanager
    async def turn(self, *, is_urgent: bool = False) -> AsyncIterator[None]:
        """Hold the turn.

        Args:
            is_urgent: Wait in any case, for what makes room.

        Raises:
            CapacityExceeded: It did not come in time, or is not expected to.
        """
        if not is_urgent and self._lock.locked():
            self._check_expected()
        await self._wait()
        begun = time.monotonic()
        try:
            yield
        finally:
            self._holds_s.append(time.monotonic() - begun)
            self._lock.release()

    def _check_expected(self) -> None:
        expected_s = self.expected_wait_s
        if expected_s > self._max_expected_wait_s:
            raise CapacityExceeded(
                f"the environment has {self.num_waiting + 1} calls to do first, about "
                f"{expected_s:.0f} s; nothing was done, try again later",
                retry_after_s=max(1, min(60, round(expected_s - self._max_expected_wait_s))),
            )

    async def _wait(self) -> None:
        try:
            self._lock.acquire_nowait()
        except anyio.WouldBlock:
            delay_s = await self._queue()
        else:
            delay_s = 0.0
        self._delays_s.append(delay_s)
        self.num_turns += 1
        self.total_wait_s += delay_s

    async def _queue(self) -> float:
        """Wait behind others; return for how long it was, in seconds."""
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
        return time.monotonic() - since
