"""A journal's database, used by one thread: entries in, outcomes out. Everything here blocks."""

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import stamina
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from steppo_env.errors import InvalidInput, SteppoError, StoreError
from steppo_env.store.layout import store_errors
from steppo_env.store.postgres import is_connection_lost
from steppo_env.store.sqlite import writing
from steppo_server.journal.entries import AddSession, Entry, Load, Purge, Write
from steppo_server.journal.rows import StepExists, StepRow
from steppo_server.journal.statements import (
    SomeExist,
    add_alone,
    load_sessions,
    purge_batch,
    write_together,
)

__all__ = ["Database", "Outcome"]

RECONNECT_S = 10.0
"""How long a lost connection is tried again before the entries that wait for it fail."""
LOADS_AT_ONCE = 100

Outcome = object
"""What an entry came to: its result, or the exception that its caller is to get."""
ResultT = TypeVar("ResultT")


class Database:
    """Carries out entries, those that come together in one transaction.

    Args:
        engine: Owned from here on; `close` gives it up.
        location: Where it is, for messages.
    """

    def __init__(self, engine: Engine, location: str) -> None:
        self.location = location
        self._engine = engine
        self._writer = writing(engine)

    def carry_out(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Return what each entry came to, in their order; what failed is an exception.

        All that is written comes first, in one transaction. An entry that cannot be written fails
        alone; when the database fails, all do.
        """
        outcomes: list[Outcome] = [None] * len(entries)
        writes: list[tuple[int, Write]] = []
        purges: list[tuple[int, Purge]] = []
        loads: list[tuple[int, Load]] = []
        for at, entry in enumerate(entries):
            if isinstance(entry, Load):
                loads.append((at, entry))
            elif isinstance(entry, Purge):
                purges.append((at, entry))
            else:
                writes.append((at, entry))
        if writes:
            written = self._write([entry for _, entry in writes])
            for (at, _), outcome in zip(writes, written):
                outcomes[at] = outcome
        for at, purge in purges:
            outcomes[at] = self._purge(purge)
        for start in range(0, len(loads), LOADS_AT_ONCE):
            some = loads[start : start + LOADS_AT_ONCE]
            read = self._load([entry.session_id for _, entry in some])
            for (at, _), outcome in zip(some, read):
                outcomes[at] = outcome
        return outcomes

    def close(self) -> None:
        """Close the connection; SQLite then tidies its files up."""
        self._engine.dispose()

    def _write(self, writes: Sequence[Write]) -> list[Outcome]:
        try:
            with store_errors("write to", self.location, "journal"):
                return self._in_spite_of_losses(
                    lambda is_repeated: self._written(writes, is_repeated=is_repeated)
                )
        except StoreError as error:
            return [copy.copy(error) for _ in writes]  # each is raised in a task of its own

    def _written(self, writes: Sequence[Write], *, is_repeated: bool) -> list[Outcome]:
        if not is_repeated:
            try:
                with self._writer.begin() as connection:
                    write_together(connection, writes)
                return [None] * len(writes)
            except SomeExist:
                pass
            except (SQLAlchemyError, ValueError, OverflowError) as error:
                if _concerns_all(error):
                    raise
        with self._writer.begin() as connection:
            return [self._written_alone(connection, write, is_repeated) for write in writes]

    def _written_alone(self, connection: Connection, write: Write, is_repeated: bool) -> Outcome:
        try:
            with connection.begin_nested():
                if isinstance(write, AddSession | StepRow):
                    add_alone(connection, write, may_be_repeated=is_repeated)
                else:
                    write_together(connection, [write])
        except (StepExists, SteppoError) as error:
            return error
        except (ValueError, OverflowError) as error:  # half a character; an integer of 65 bits
            return InvalidInput(f"the journal cannot keep {type(write).__name__}: {error}")
        except SQLAlchemyError as error:
            if _concerns_all(error):
                raise
            return self._store_error("write to", error)
        return None

    def _purge(self, purge: Purge) -> Outcome:
        def work(_is_repeated: bool) -> tuple[int, bool]:
            with self._writer.begin() as connection:
                return purge_batch(connection, purge.before)

        try:
            with store_errors("purge", self.location, "journal"):
                return self._in_spite_of_losses(work)
        except StoreError as error:
            return error

    def _load(self, session_ids: Sequence[str]) -> list[Outcome]:
        def work(_is_repeated: bool) -> list[Outcome]:
            with self._engine.begin() as connection:
                found = load_sessions(connection, session_ids)
            return [found.get(session_id) for session_id in session_ids]

        try:
            with store_errors("read", self.location, "journal"):
                return self._in_spite_of_losses(work)
        except StoreError as error:
            return [copy.copy(error) for _ in session_ids]

    def _in_spite_of_losses(self, work: Callable[[bool], ResultT]) -> ResultT:
        """Do the work, again on a new connection where the first is lost.

        Args:
            work: Told whether an earlier attempt may have been committed.
        """
        try:
            return work(False)
        except DBAPIError as error:
            if not is_connection_lost(error):
                raise
        for attempt in stamina.retry_context(
            on=is_connection_lost,
            attempts=None,
            timeout=RECONNECT_S,
            wait_initial=0.05,
            wait_max=1.0,
        ):
            with attempt:
                return work(True)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _store_error(self, what: str, error: SQLAlchemyError) -> StoreError:
        try:
            with store_errors(what, self.location, "journal"):
                raise error
        except StoreError as told:
            return told


def _concerns_all(error: Exception) -> bool:
    """Return whether the database failed, rather than one row of those written together."""
    return isinstance(error, OperationalError) or is_connection_lost(error)
