"""The durable, step-tagged trajectory store.

::

    with open_store("sqlite:///runs.db") as store:
        store.append(trajectory)              # returns once it is on disk
        page = store.list(TrajectoryFilter(env_id="steppo/KeyDoor-v0"))
        trajectory = store.get(page.items[0].trajectory_id)

A store may be used by many threads, and one file by many processes at once. Everything here blocks;
async callers go through a thread.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, StaticPool, func, insert, select, update

from steppo_env.errors import InvalidInput, StoreError
from steppo_env.mdp import Trajectory
from steppo_env.store.codec import Row, encode_trajectory
from steppo_env.store.layout import store_errors
from steppo_env.store.query import (
    GroupSummary,
    TrajectoryFilter,
    TrajectoryPage,
    decode_cursor,
    decode_groups,
    decode_summary,
    encode_cursor,
    select_groups,
    select_summaries,
    where_clauses,
)
from steppo_env.store.rows import (
    check_same,
    conflict,
    find_by_prefix,
    find_run,
    find_trajectory,
    load_trajectories,
    row_differences,
    unknown_run,
)
from steppo_env.store.runs import Run, decode_run, encode_run
from steppo_env.store.schema import STORE, runs, steps, trajectories
from steppo_env.store.sqlite import open_engine, writing
from steppo_env.store.validation import check_number, check_text

__all__ = ["TrajectoryStore", "open_store"]

ALL = TrajectoryFilter()
MAX_PAGE = 1_000
ITERATE_BATCH = 16
"""Trajectories read at a time by `iterate`: memory for few, and no transaction held for long."""
LOCK_TIMEOUT_S = 60.0
_END_OF_RUN = ("ended_at", "outcome")


def open_store(url: str, *, create: bool = True) -> "TrajectoryStore":
    """Open the store at a URL, and begin one where there is none.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db`, or `sqlite://` for one in memory
            that is gone when it is closed.
        create: False to open only what is there; then a missing file is never made.

    Raises:
        StoreError: There is no store, or no place for one; the message says why.
        StoreFromFuture: A newer version of this software wrote it. Nothing is changed in it.

    >>> with open_store("sqlite://") as store:
    ...     store.count()
    0
    """
    engine, location = open_engine(url, STORE, create=create)
    return TrajectoryStore(engine, location)


class TrajectoryStore:
    """Trajectories and the runs that made them. Open one with `open_store`, and close it.

    Every method raises StoreError when the database fails, is locked for long, or was closed.
    """

    def __init__(self, engine: Engine, location: str) -> None:
        self.location = location
        """Where it is, for messages."""
        self._engine = engine
        self._writer = writing(engine)
        self._pid = os.getpid()
        self._is_open = True
        self._num_active = 0
        self._idle = threading.Condition()
        # SQLite's own queue of writers polls and is unfair; threads of one process line up here.
        self._write_lock = threading.RLock()
        self._has_one_connection = isinstance(engine.pool, StaticPool)

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Return where it is, and whether it is open."""
        return f"<TrajectoryStore at {self.location}, {'open' if self._is_open else 'closed'}>"

    def close(self) -> None:
        """Wait for calls of other threads, then close the connections. Closing again is nothing."""
        if self._pid != os.getpid():
            return  # the connections are the parent's
        with self._idle:
            self._is_open = False
            self._idle.wait_for(lambda: self._num_active == 0, timeout=LOCK_TIMEOUT_S)
        self._engine.dispose()

    def append(self, trajectory: Trajectory) -> bool:
        """Store a whole trajectory in one transaction. When this returns, it is on disk.

        Log-probabilities are kept as float32. Appending the same record again is safe.

        Returns:
            True when it is new, False when the same record is there already.

        Raises:
            InvalidInput: It contradicts itself; names the step and the field.
            RecordConflict: A different record has this id; names what differs.
        """
        row, step_rows = encode_trajectory(trajectory)
        with self._transaction(self._writer, "write to") as connection:
            stored = find_trajectory(connection, trajectory.trajectory_id)
            if stored is not None:
                check_same(connection, stored, row, step_rows)
                return False
            statement = insert(trajectories).returning(trajectories.c.sequence)
            sequence = connection.execute(statement, row).scalar_one()
            if step_rows:
                parent = {"trajectory_sequence": sequence}
                connection.execute(insert(steps), [parent | step for step in step_rows])
        return True

    def get(self, trajectory_id: str) -> Trajectory:
        """Return a trajectory by its id, or by the first characters of it (at least 6).

        Raises:
            UnknownTrajectory: There is none, or several begin so; names the candidates.
        """
        with self._transaction(self._engine, "read") as connection:
            row = find_trajectory(connection, trajectory_id) or find_by_prefix(
                connection, trajectory_id, self.location
            )
            return load_trajectories(connection, [row])[0]

    def list(
        self, filter: TrajectoryFilter = ALL, *, limit: int = 50, cursor: str | None = None
    ) -> TrajectoryPage:
        """Return one page of trajectories, the newest append first.

        Each trajectory that is there at the first page is seen once, whatever is appended meanwhile.

        Args:
            limit: Trajectories on the page, 1 to 1000.
            cursor: The `next_cursor` of the page before, with the same filter.

        Raises:
            InvalidInput: `limit` is out of bounds, or `cursor` is not one of this filter.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidInput(f"limit must be an integer from 1 to {MAX_PAGE}; got {limit}")
        query = select_summaries(filter).limit(limit + 1)
        if cursor is not None:
            query = query.where(trajectories.c.sequence < decode_cursor(cursor, filter))
        with self._transaction(self._engine, "read") as connection:
            rows = connection.execute(query).mappings().all()
        has_more = len(rows) > limit
        rows = rows[:limit]
        return TrajectoryPage(
            items=tuple(decode_summary(row) for row in rows),
            next_cursor=encode_cursor(rows[-1]["sequence"], filter) if has_more else None,
        )

    def iterate(self, filter: TrajectoryFilter = ALL) -> Iterator[Trajectory]:
        """Yield every trajectory in the order of appending; what is appended meanwhile is left out.

        No transaction stays open between two trajectories, so a slow consumer blocks nobody.

        Raises:
            InvalidInput: The filter cannot be satisfied by any trajectory.
        """
        query = (
            select(trajectories)
            .where(*where_clauses(filter))
            .order_by(trajectories.c.sequence)
            .limit(ITERATE_BATCH)
        )
        with self._transaction(self._engine, "read") as connection:
            last = connection.execute(select(func.max(trajectories.c.sequence))).scalar()
        query = query.where(trajectories.c.sequence <= (last or 0))

        def batches() -> Iterator[Trajectory]:
            seen = 0
            while True:
                with self._transaction(self._engine, "read") as connection:
                    later = query.where(trajectories.c.sequence > seen)
                    rows = connection.execute(later).mappings().all()
                    batch = load_trajectories(connection, rows)
                yield from batch
                if len(rows) < ITERATE_BATCH:
                    return
                seen = rows[-1]["sequence"]

        return batches()

    def count(self, filter: TrajectoryFilter = ALL) -> int:
        """Return how many trajectories a filter means."""
        query = select(func.count()).select_from(trajectories).where(*where_clauses(filter))
        with self._transaction(self._engine, "read") as connection:
            return connection.execute(query).scalar_one()

    def summarize(
        self, filter: TrajectoryFilter = ALL, by: Sequence[str] = ("env_id",)
    ) -> tuple[GroupSummary, ...]:
        """Add trajectories up by group, ordered by group; each trajectory weighs the same.

        Args:
            by: Some of env_id, task_id, split, policy, run_id, group_id and stop_reason. None of
                them makes one group of all. A group without trajectories is not returned.

        Raises:
            InvalidInput: `by` names something else.
        """
        query = select_groups(filter, by)
        with self._transaction(self._engine, "read") as connection:
            return decode_groups(connection.execute(query).mappings().all(), by)

    def start_run(self, run: Run) -> bool:
        """Record a run. Recording it again is safe, also after it was finished.

        Returns:
            True when it is new, False when the same run is there already.

        Raises:
            RecordConflict: A different run has this id; names what differs.
            InvalidInput: It holds something that cannot be kept.
        """
        row = encode_run(run)
        with self._transaction(self._writer, "write to") as connection:
            stored = find_run(connection, run.run_id)
            if stored is None:
                connection.execute(insert(runs), row)
                return True
            differences = [
                name
                for name in row_differences(stored, row)
                if name not in _END_OF_RUN or row[name] is not None
            ]
        if differences:
            raise conflict("run", run.run_id, differences)
        return False

    def finish_run(self, run_id: str, outcome: str, ended_at: float) -> None:
        """Record how and when a run ended (Unix time, seconds). The same again is nothing.

        Raises:
            NotFound: No such run was started.
            RecordConflict: It is recorded with another end.
        """
        check_text(outcome, f"run {run_id!r}: outcome")
        check_number(ended_at, f"run {run_id!r}: ended_at")
        end: Row = {"ended_at": float(ended_at) + 0.0, "outcome": outcome}
        with self._transaction(self._writer, "write to") as connection:
            stored = find_run(connection, run_id)
            if stored is None:
                raise unknown_run(run_id)
            differences = row_differences(stored, end)
            if any(stored[name] is not None for name in differences):
                raise conflict("run", run_id, differences)
            connection.execute(update(runs).where(runs.c.run_id == run_id).values(**end))

    def get_run(self, run_id: str) -> Run:
        """Return a run.

        Raises:
            NotFound: No such run was started.
        """
        with self._transaction(self._engine, "read") as connection:
            row = find_run(connection, run_id)
        if row is None:
            raise unknown_run(run_id)
        return decode_run(row)

    def runs(self) -> tuple[Run, ...]:
        """Return every run, the one started first to the last."""
        with self._transaction(self._engine, "read") as connection:
            rows = connection.execute(select(runs).order_by(runs.c.sequence)).mappings().all()
        return tuple(decode_run(row) for row in rows)

    @contextmanager
    def _transaction(self, engine: Engine, what: str) -> Iterator[Connection]:
        self._check_process()  # before any lock: a child may inherit one that is never released
        with self._idle:
            if not self._is_open:
                raise StoreError(f"the store at {self.location} is closed; open it again")
            self._num_active += 1
        is_alone = engine is self._writer or self._has_one_connection
        try:
            if is_alone and not self._write_lock.acquire(timeout=LOCK_TIMEOUT_S):
                raise StoreError(
                    f"cannot {what} the store at {self.location}: other threads kept it for "
                    f"{LOCK_TIMEOUT_S:g} s; try again"
                )
            try:
                with store_errors(what, self.location), engine.begin() as connection:
                    yield connection
            finally:
                if is_alone:
                    self._write_lock.release()
        finally:
            with self._idle:
                self._num_active -= 1
                self._idle.notify_all()

    def _check_process(self) -> None:
        # SQLite's locks and its memory of them do not survive a fork: writing on would damage the
        # file (sqlite.org/howtocorrupt.html, section 2.6).
        if self._pid != os.getpid():
            raise StoreError(
                f"the store at {self.location} was opened by process {self._pid} and cannot be "
                "used in a fork of it; start workers with spawn and open the store in each"
            )
