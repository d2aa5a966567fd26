"""One thread that has a journal's database to itself, and the event loop's side of it.

This is the group commit: what an event loop asks in one turn goes to the thread together, and what
arrives while the thread is busy goes into its next transaction.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

import anyio

from steppo_env.errors import StoreError
from steppo_server.journal.database import Database, Outcome
from steppo_server.journal.entries import Entry

__all__ = ["DatabaseThread", "OnCommit"]

OnCommit = Callable[[int, float], None]
"""Told of a turn: its number of entries, and how many seconds it took."""

WAIT_S = 60.0
"""How long a caller waits for its entry. The database's own limits, which say more, are shorter."""
MAX_TOGETHER = 1_024
"""Entries from which on no more are taken into the same transaction."""

logger = logging.getLogger("steppo.server")


class _Batch:
    """What was asked in one turn of an event loop.

    Attributes:
        futures: One for each caller.
        places: Where the outcome of each caller's entry is to stand, or those of its entries.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.entries: list[Entry] = []
        self.futures: list[asyncio.Future[Outcome]] = []
        self.places: list[int | slice] = []
        self.deadline: asyncio.TimerHandle | None = None

    def new_future(self, place: int | slice) -> "asyncio.Future[Outcome]":
        """Return the future of the outcomes at a place."""
        future: asyncio.Future[Outcome] = self.loop.create_future()
        self.futures.append(future)
        self.places.append(place)
        return future

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Give each caller that still waits its outcome. Runs on the event loop."""
        if self.deadline is not None:
            self.deadline.cancel()
        for future, place in zip(self.futures, self.places):
            if future.done():
                continue  # cancelled, or past its deadline
            outcome = outcomes[place]
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


class DatabaseThread:
    """Takes the entries of one event loop and brings their outcomes back.

    Entries are carried out in the order in which they were submitted, in transactions of many. A
    caller that is cancelled takes nothing back: its entry is carried out once, as if it had waited.

    Args:
        on_commit: Told, on the thread, how many entries each turn had and how many seconds it took.
    """

    def __init__(self, database: Database, on_commit: OnCommit | None = None) -> None:
        self.location = database.location
        self._database = database
        self._on_commit = on_commit
        self._batches: SimpleQueue[_Batch] = SimpleQueue()
        self._gathering: _Batch | None = None
        self._end: _Batch | None = None
        # A database that hangs must not keep the process from ending.
        threading.Thread(target=self._run, name="steppo-journal", daemon=True).start()

    def submit(self, entry: Entry) -> "asyncio.Future[Outcome]":
        """Return the future of an entry's outcome. Called on the event loop.

        Raises:
            StoreError: The journal is closed.
        """
        batch = self._gathered()
        batch.entries.append(entry)
        return batch.new_future(len(batch.entries) - 1)

    def submit_all(self, entries: Sequence[Entry]) -> "asyncio.Future[Outcome]":
        """Return the future of the outcomes of many entries: a list, errors included.

        Raises:
            StoreError: The journal is closed.
        """
        batch = self._gathered()
        start = len(batch.entries)
        batch.entries += entries
        return batch.new_future(slice(start, start + len(entries)))

    def _gathered(self) -> _Batch:
        if self._end is not None:
            raise StoreError(f"the journal at {self.location} is closed; open it again")
        if self._gathering is None:
            loop = asyncio.get_running_loop()
            self._gathering = _Batch(loop)
            loop.call_soon(self._hand_over)
        return self._gathering

    async def close(self) -> None:
        """Carry out what was submitted, then close the database. Closing again waits as well.

        Raises:
            StoreError: It takes too long; what was submitted may be lost.
        """
        if self._end is None:
            self._hand_over()
            self._end = _Batch(asyncio.get_running_loop())
            self._end.new_future(0)
            self._batches.put(self._end)
        with anyio.move_on_after(WAIT_S):
            await asyncio.shield(self._end.futures[0])
            return
        raise StoreError(
            f"the journal at {self.location} did not close within {WAIT_S:g} s; what was not yet "
            "acknowledged may be lost"
        )

    def _hand_over(self) -> None:
        batch, self._gathering = self._gathering, None
        if batch is not None:
            batch.deadline = batch.loop.call_later(WAIT_S, self._give_up, batch)
            self._batches.put(batch)

    def _give_up(self, batch: _Batch) -> None:
        message = (
            f"the journal at {self.location} did not answer within {WAIT_S:g} s; whether it did "
            "what was asked is not known"
        )
        batch.settle([StoreError(message) for _ in batch.entries])

    def _run(self) -> None:
        while self._take_turn():
            pass

    def _take_turn(self) -> bool:
        """Carry out what is there; return whether there is a next turn."""
        batches = self._next_batches()
        entries = [entry for batch in batches for entry in batch.entries]
        begun = time.perf_counter()
        outcomes = self._carry_out(entries)
        if entries and self._on_commit is not None:
            self._on_commit(len(entries), time.perf_counter() - begun)
        is_last = batches[-1] is self._end
        if is_last:
            outcomes.append(self._close_database())
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            batches[0].loop.call_soon_threadsafe(_settle, batches, outcomes)
        return not is_last

    def _next_batches(self) -> list[_Batch]:
        """Wait for a batch, and take along what else is there."""
        batches = [self._batches.get()]
        num_entries = len(batches[0].entries)
        with suppress(Empty):
            while num_entries < MAX_TOGETHER and batches[-1] is not self._end:
                batches.append(self._batches.get_nowait())
                num_entries += len(batches[-1].entries)
        return batches

    def _carry_out(self, entries: list[Entry]) -> list[Outcome]:
        try:
            return self._database.carry_out(entries)
        except Exception as error:
            # A thread that died here would leave every later caller without an answer.
            logger.exception("the journal at %s failed", self.location)
            message = f"the journal at {self.location} failed ({type(error).__name__}: {error})"
            return [StoreError(message) for _ in entries]

    def _close_database(self) -> StoreError | None:
        try:
            self._database.close()
        except Exception as error:
            logger.exception("the journal at %s did not close", self.location)
            return StoreError(f"the journal at {self.location} did not close: {error}")
        return None


def _settle(batches: list[_Batch], outcomes: list[Outcome]) -> None:
    start = 0
    for batch in batches:
        end = start + max(1, len(batch.entries))  # the end has an outcome, and no entry
        batch.settle(outcomes[start:end])
        start = end
