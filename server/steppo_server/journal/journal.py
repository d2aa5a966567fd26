"""The journal: what a server must remember of its sessions to survive its own death.

::

    async with open_journal("sqlite:////var/lib/steppo/journal.db") as journal:
        await journal.add_session(row)    # returns once it is committed
        await journal.add_step(step)
        found = await journal.load(row.session_id)

A session is its request and its actions; whoever has both can rebuild it by replay. So each step is
journalled before its reply leaves, and everything in memory may be lost at any moment.
"""

import copy
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self, cast

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from steppo_env.errors import InvalidInput, StoreError
from steppo_env.store import postgres, sqlite
from steppo_env.store.layout import store_errors
from steppo_env.store.sqlite import Sync
from steppo_env.store.validation import is_text
from steppo_server.journal.database import Database
from steppo_server.journal.entries import AddSession, Beat, Load, Purge, RemoveSession, Renew
from steppo_server.journal.rows import Journalled, SessionRow, StepRow
from steppo_server.journal.schema import JOURNAL
from steppo_server.journal.statements import last_beat
from steppo_server.journal.thread import DatabaseThread, OnCommit

__all__ = ["Journal", "open_journal"]


def open_journal(
    url: str, *, sync: Sync = "normal", on_commit: OnCommit | None = None
) -> "Journal":
    """Open the journal at a URL, and begin one where there is none. Blocks for a moment.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, `sqlite://` (in memory, gone when
            closed) or `postgresql://user@host/database`.
        sync: With "normal" what was acknowledged outlives this process, however it ends. With
            "full" it outlives a loss of power as well; each commit then waits for the disk.
            PostgreSQL's "normal" is its server's own setting, which by default waits too.
        on_commit: Told of each turn how many entries it had and how many seconds it took; called on
            the journal's thread.

    Raises:
        StoreError: There is something else, or no place for a journal; the message says why.
        StoreFromFuture: A newer version of this software wrote it. Nothing is changed in it.
        MissingDependency: The driver of PostgreSQL is not installed.

    >>> import asyncio
    >>> async def main() -> None:
    ...     async with open_journal("sqlite://") as journal:
    ...         print(await journal.load("nobody"))
    >>> asyncio.run(main())
    None
    """
    opened_at = time.time()
    if postgres.is_postgres(url):
        engine, location = postgres.open_engine(url, JOURNAL, sync=sync)
    else:
        _check_is_sqlite(url)
        engine, location = sqlite.open_engine(url, JOURNAL, create=True, sync=sync)
    try:
        with store_errors("read", location, JOURNAL.noun), engine.begin() as connection:
            beat = last_beat(connection)
    except BaseException:
        engine.dispose()
        raise
    # A clock that was put back must not make leases end that nobody could renew.
    alive_until = opened_at if beat is None else min(beat, opened_at)
    return Journal(DatabaseThread(Database(engine, location), on_commit), alive_until)


class Journal:
    """What a server must remember of its sessions. Used from one event loop; close it.

    Open one with `open_journal`. A call returns when what it asked is committed. A cancelled call may
    still have done so, and did it once. Any of them raises StoreError when the database fails or does
    not answer in time: its disk is full, it is read-only, its connection is lost. Whether the entry
    was committed is then unknown; asking again tells.

    Attributes:
        alive_until: When a server that uses this journal was last known to be alive before this
            one opened it (Unix time); the time of opening where that is not known. Leases are
            measured up to it, so that a time in which no server ran expires nothing.
    """

    def __init__(self, thread: DatabaseThread, alive_until: float) -> None:
        self.alive_until = alive_until
        self._thread = thread

    async def __aenter__(self) -> Self:
        """Return the journal."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()

    async def add_session(self, row: SessionRow, steps: Sequence[StepRow] = ()) -> None:
        """Add a session, and with it the steps that it begins with: all of it or nothing.

        Raises:
            SessionExists: The id is taken, perhaps by another server.
            InvalidInput: The steps are not those of this session from 0 on.
        """
        for at, step in enumerate(steps):
            if (step.session_id, step.step_index) != (row.session_id, at):
                raise InvalidInput(
                    f"the steps of session {row.session_id} begin with 0 and have no gaps; at "
                    f"place {at} stands step {step.step_index} of session {step.session_id}"
                )
        await self._thread.submit(AddSession(row, tuple(steps)))

    async def add_step(self, row: StepRow) -> None:
        """Add a step of a session.

        Raises:
            StepExists: The journal has this step; another server, or a lost reply, was first.
            UnknownSession: The journal does not have the session (any more).
        """
        await self._thread.submit(row)

    async def add_steps(self, rows: Sequence[StepRow]) -> Sequence[Exception | None]:
        """Add steps, those of one session in their order; return what each came to, in their order.

        That is None, or what `add_step` would raise: one that fails fails no other.
        """
        if not rows:
            return ()
        try:
            outcomes = await self._thread.submit_all(rows)
        except StoreError as error:
            return [copy.copy(error) for _ in rows]
        return cast(Sequence[Exception | None], outcomes)

    async def load(self, session_id: str) -> Journalled | None:
        """Return all about a session, with what was asked before this call; None if unknown."""
        if not is_text(session_id) or "\0" in session_id:
            return None  # no database could hold it
        return cast(Journalled | None, await self._thread.submit(Load(session_id)))

    async def remove_session(self, session_id: str) -> None:
        """Remove a session and its steps; its id is free again. One that is unknown is nothing."""
        await self._thread.submit(RemoveSession(session_id))

    async def renew(self, leases: Mapping[str, float]) -> None:
        """Put the leases of sessions off to these times (Unix time), never to an earlier one."""
        if leases:
            await self._thread.submit(Renew(dict(leases)))

    async def beat(self) -> None:
        """Note that this server is alive now."""
        await self._thread.submit(Beat(time.time()))

    async def purge(self, before: float) -> int:
        """Remove the sessions that expired before a time; return how many.

        They go in batches, between which others write.
        """
        num_removed, may_be_more = 0, True
        while may_be_more:  # each batch removes its sessions, or moves them past `before`
            outcome = await self._thread.submit(Purge(before))
            num, may_be_more = cast(tuple[int, bool], outcome)
            num_removed += num
        return num_removed

    async def close(self) -> None:
        """Finish what was asked, and close the database. Closing again is safe."""
        await self._thread.close()


def _check_is_sqlite(url: str) -> None:
    try:
        driver = make_url(url).drivername
    except (ArgumentError, ValueError):
        driver = ""
    if driver != "sqlite":
        raise StoreError(
            "a journal URL looks like sqlite:///journal.db or postgresql://user@host/database; "
            f"got {driver + '://' if driver else 'what is no database URL'}"
        )
