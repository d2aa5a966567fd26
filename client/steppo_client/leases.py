"""Heartbeats: a session lives on while its client does, however long a policy thinks."""

import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from steppo_env.errors import SteppoError
from steppo_env.wire import MAX_LEASES, LeaseRequest, LeaseResults

__all__ = ["LeaseKeeper"]

BEATS_PER_LEASE = 3
"""So that two may get lost."""

GONE = frozenset({404, 410})

logger = logging.getLogger("steppo.client")


@dataclass(slots=True)
class _Lease:
    """How long it runs, and when it is to be renewed (monotonic clock), in seconds."""

    lease_s: float
    due: float


class LeaseKeeper:
    """Renews the leases of open sessions, each three times as often as it would run out.

    Args:
        renew: Sends one request for many sessions.
    """

    def __init__(self, renew: Callable[[LeaseRequest], Awaitable[LeaseResults]]) -> None:
        self._renew = renew
        self._leases: dict[str, _Lease] = {}
        self._next_due = math.inf
        self._is_earlier = anyio.Event()

    def keep(self, session_id: str, lease_s: float) -> None:
        """Renew this session's lease from now on."""
        due = time.monotonic() + lease_s / BEATS_PER_LEASE
        self._leases[session_id] = _Lease(lease_s, due)
        if due < self._next_due:
            self._is_earlier.set()

    def drop(self, session_id: str) -> None:
        """Renew it no longer."""
        self._leases.pop(session_id, None)

    async def run(self) -> None:
        """Renew what is due, until cancelled."""
        while True:
            self._is_earlier = anyio.Event()
            self._next_due = min((lease.due for lease in self._leases.values()), default=math.inf)
            with anyio.move_on_after(self._next_due - time.monotonic()):
                await self._is_earlier.wait()
                continue
            await self._beat()

    async def _beat(self) -> None:
        now = time.monotonic()
        # Those that are due soon go along, so that the beats of many sessions become few.
        due = {
            session_id: lease
            for session_id, lease in self._leases.items()
            if lease.due <= now + lease.lease_s / BEATS_PER_LEASE / 2
        }
        for lease in due.values():
            lease.due = now + lease.lease_s / BEATS_PER_LEASE
        # The next beat is another chance; this one must not hold it up.
        longest_s = min((lease.lease_s for lease in due.values()), default=0.0) / BEATS_PER_LEASE
        session_ids = list(due)
        with anyio.move_on_after(longest_s):
            for first in range(0, len(session_ids), MAX_LEASES):
                await self._renew_some(session_ids[first : first + MAX_LEASES])

    async def _renew_some(self, session_ids: list[str]) -> None:
        try:
            # Whoever still plays a session wants it back, should a beat have come too late.
            renewed = await self._renew(LeaseRequest(session_ids=session_ids, revive=True))
        except SteppoError as error:
            logger.warning(
                "the leases of %d sessions were not renewed: %s", len(session_ids), error
            )
            return
        for result in renewed.results:
            if result.status in GONE and result.session_id in self._leases:
                self.drop(result.session_id)
                logger.warning("session %s is gone from the server", result.session_id)
