"""Whether a server should get new work. One that should not still answers what it has."""

import time

import anyio

from steppo_env.errors import NotReady, StoreError
from steppo_server.sessions import SessionManager

__all__ = ["Readiness"]

JOURNAL_DEADLINE_S = 2.0
RECENT_S = 1.0
"""How long the journal's last answer counts: anybody may ask, and each answer is a commit."""


class Readiness:
    """Looks at what new sessions need."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager
        self._written_at = float("-inf")

    async def check(self) -> None:
        """Return when new sessions can be taken.

        Raises:
            NotReady: The server stops soon, is full, or cannot write its journal; `reason` among the
                members is "draining", "full" or "journal".
        """
        manager = self._manager
        if manager.is_draining:
            raise NotReady("the server stops soon", reason="draining")
        if manager.num_sessions >= manager.settings.max_sessions:
            raise NotReady(
                f"there are {manager.num_sessions} sessions, as many as this server takes",
                reason="full",
            )
        await self._check_journal()

    async def _check_journal(self) -> None:
        if time.monotonic() - self._written_at < RECENT_S:
            return
        try:
            with anyio.fail_after(JOURNAL_DEADLINE_S):
                await self._manager.journal.beat()
        except (StoreError, TimeoutError) as error:
            why = str(error) or f"no answer within {JOURNAL_DEADLINE_S:g} s"
            raise NotReady(f"the journal cannot be written: {why}", reason="journal") from error
        self._written_at = time.monotonic()
