"""One policy for requests that are safe to repeat."""

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import stamina

from steppo_env.errors import (
    CapacityExceeded,
    SteppoError,
    TooManyRequests,
    TransportError,
    WorkerDied,
)

__all__ = ["repeated"]

ResultT = TypeVar("ResultT")

NUM_ATTEMPTS = 4
MAX_WAIT_S = 30.0
"""Longest pause before a request is sent again, whatever the server asks for."""

PASSING_STATUSES = frozenset({429, 502, 503, 504})
"""What a proxy answers while the server behind it is busy or away."""


async def repeated(work: Callable[[], Awaitable[ResultT]], timeout_s: float) -> ResultT:
    """Send a request that is safe to repeat, and repeat it while its reply gets lost.

    Args:
        work: One attempt.
        timeout_s: No attempt begins later than this after the first.
    """
    began = time.monotonic()
    failure: SteppoError | None = None
    try:
        return await work()
    except SteppoError as error:
        if not _may_repeat(error):
            raise
        failure = error
    # Only now, since preparing for repetition costs more than most requests.
    left_s = max(timeout_s - (time.monotonic() - began), 1e-3)
    async for attempt in stamina.retry_context(
        on=_may_repeat, attempts=NUM_ATTEMPTS, wait_max=5.0, timeout=left_s
    ):
        with attempt:
            if failure is not None:  # the attempt above counts as the first
                first, failure = failure, None
                raise first
            return await work()
    raise AssertionError("unreachable: the last attempt returns or raises")


def _may_repeat(error: Exception) -> bool | float:
    """Return whether to send a request again, or after how many seconds."""
    if not isinstance(error, TransportError | CapacityExceeded | TooManyRequests | WorkerDied):
        return False
    if error.members.get("http_status", 503) not in PASSING_STATUSES:
        return False  # whatever answered there is not the server
    wait_s = error.members.get("retry_after_s")
    return min(float(wait_s), MAX_WAIT_S) if isinstance(wait_s, int | float) else True
