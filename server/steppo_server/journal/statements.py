"""What is done to a journal's tables, within a transaction that the caller holds.

Rows go in many at a time, in one statement: SQLite's driver gives Python's lock away around each
row of an executemany, and a busy event loop is slow to give it back. Within a transaction rows are
written in the order of their keys, so that two servers that write the same ones do not wait for
each other in a circle.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from itertools import chain
from operator import attrgetter

from sqlalchemy import Connection, bindparam, delete, func, select

from steppo_env.errors import SessionExists, StoreError, UnknownSession
from steppo_server.journal.entries import AddSession, Beat, RemoveSession, Renew, Write
from steppo_server.journal.rows import Journalled, SessionRow, StepExists, StepRow
from steppo_server.journal.schema import beat, sessions, steps

__all__ = [
    "PURGE_BATCH",
    "SomeExist",
    "add_alone",
    "last_beat",
    "load_sessions",
    "purge_batch",
    "write_together",
]

PURGE_BATCH = 200
"""Sessions looked at in one transaction of a purge."""
ROWS_AT_ONCE = 64
"""Rows of one statement. There are as many statements as lengths, and the driver keeps 128."""
_SESSION = tuple(field.name for field in fields(SessionRow))
_STEP = tuple(field.name for field in fields(StepRow))
_session_cells = attrgetter(*_SESSION)
_step_cells = attrgetter(*_STEP)
_session_key = attrgetter("session_id")
_step_key = attrgetter("session_id", "step_index")
_Cells = tuple[object, ...]

_ASKED_FOR = sessions.c.session_id.in_(bindparam("session_ids", expanding=True))
_SELECT_SESSIONS = select(*(sessions.c[name] for name in _SESSION)).where(_ASKED_FOR)
_SELECT_STEPS = (
    select(sessions.c.session_id, *(steps.c[name] for name in _STEP[1:]))
    .join_from(sessions, steps)
    .where(_ASKED_FOR)
    .order_by(steps.c.session_number, steps.c.step_index)
)


class SomeExist(Exception):
    """Some of the rows are there already; which ones was not asked."""


def write_together(connection: Connection, writes: Sequence[Write]) -> None:
    """Do all that is asked, in as few statements as it takes.

    Raises:
        SomeExist: A session or step is there already. Undo the transaction.
    """
    added = [write for write in writes if isinstance(write, AddSession)]
    taken = [write for write in writes if isinstance(write, StepRow)]
    taken += chain.from_iterable(write.steps for write in added)
    new_sessions = sorted((write.row for write in added), key=_session_key)
    _insert(connection, _insert_sessions, [_session_cells(row) for row in new_sessions])
    taken.sort(key=_step_key)
    _insert(connection, _insert_steps, [_step_cells(row) for row in taken])
    if len(taken) + len(added) < len(writes):
        _write_rest(connection, writes)


def _write_rest(connection: Connection, writes: Sequence[Write]) -> None:
    leases: dict[str, float] = {}
    removed: list[str] = []
    last: Beat | None = None
    for write in writes:
        match write:
            case Renew(renewed):
                for session_id, until in renewed.items():
                    leases[session_id] = max(until, leases.get(session_id, until))
            case RemoveSession(session_id):
                removed.append(session_id)
            case Beat():
                last = write
            case _:
                pass
    _set_later(connection, "lease_expires_at", "< given.column2", leases)
    if removed:
        connection.execute(delete(sessions).where(sessions.c.session_id.in_(sorted(removed))))
    if last is not None:
        mark = _mark(connection)
        connection.exec_driver_sql(
            f"INSERT INTO {beat.name} (beat_id, at) VALUES (1, {mark}) "
            "ON CONFLICT (beat_id) DO UPDATE SET at = excluded.at",
            (last.at,),
        )


def add_alone(
    connection: Connection, write: AddSession | StepRow, *, may_be_repeated: bool
) -> None:
    """Add a session or a step, or say what is there in its place.

    Args:
        may_be_repeated: An earlier attempt may have been committed: what is equal counts as added.

    Raises:
        SessionExists: The id of the session is taken.
        StepExists: The step is there.
        UnknownSession: The session of the step is not there.
    """
    key = write.session_id if isinstance(write, StepRow) else write.row.session_id
    if isinstance(write, StepRow) and not _has_session(connection, key):
        raise _unknown(key)
    try:
        write_together(connection, [write])
        return
    except SomeExist:
        pass
    found = load_sessions(connection, [key]).get(key)
    if isinstance(found, StoreError):
        raise found
    if isinstance(write, AddSession):
        if not (may_be_repeated and found == _journalled(write.row, write.steps)):
            raise SessionExists(f"session {key} exists in the journal", session_id=key)
        return
    if found is None or write.step_index >= len(found.steps):
        raise _unknown(key)
    existing = found.steps[write.step_index]
    if not (may_be_repeated and existing == write):
        raise StepExists(existing)


def load_sessions(
    connection: Connection, session_ids: Sequence[str]
) -> dict[str, Journalled | StoreError]:
    """Return those of the sessions that are there; an error for each that is damaged."""
    rows = connection.execute(_SELECT_SESSIONS, {"session_ids": session_ids}).all()
    taken: dict[str, list[StepRow]] = {row.session_id: [] for row in rows}
    if taken:
        for step in connection.execute(_SELECT_STEPS, {"session_ids": [*taken]}):
            taken[step.session_id].append(StepRow(*step))
    found: dict[str, Journalled | StoreError] = {}
    for cells in rows:
        row = SessionRow(*cells)
        found[row.session_id] = _checked(row, taken[row.session_id])
    return found


def purge_batch(connection: Connection, before: float) -> tuple[int, bool]:
    """Remove sessions that expired before this time.

    Returns:
        How many were removed, and whether there may be more.
    """
    # The rows stay locked: a step that another server adds meanwhile comes before the look at the
    # steps or finds no session; and what another server has in hand now is left to a later purge.
    number = sessions.c.session_number
    is_due = sessions.c.lease_expires_at < before
    query = select(number, sessions.c.session_id).where(is_due)
    locking = query.limit(PURGE_BATCH).with_for_update(skip_locked=True)
    due = connection.execute(locking).all()
    is_one_of_them = steps.c.session_number.in_([row.session_number for row in due])
    latest = select(steps.c.session_number, func.max(steps.c.lease_expires_at).label("latest"))
    per_session = latest.where(is_one_of_them).group_by(steps.c.session_number)
    leases = {row.session_number: row.latest for row in connection.execute(per_session)}
    kept = {
        row.session_id: leases[row.session_number]
        for row in due
        if leases.get(row.session_number, before - 1) >= before
    }
    # Noted in the session's row, so that the next batch does not look at it again.
    _set_later(connection, "lease_expires_at", "< given.column2", kept)
    removed = [row.session_number for row in due if row.session_id not in kept]
    connection.execute(delete(sessions).where(number.in_(removed)))
    return len(removed), len(due) == PURGE_BATCH


def last_beat(connection: Connection) -> float | None:
    """Return when a server was last known to be alive; None before the first beat."""
    return connection.execute(select(beat.c.at)).scalar_one_or_none()


def _has_session(connection: Connection, session_id: str) -> bool:
    query = select(sessions.c.session_id).where(sessions.c.session_id == session_id)
    return connection.execute(query).first() is not None


def _unknown(session_id: str) -> UnknownSession:
    return UnknownSession(f"session {session_id} is not in the journal", session_id=session_id)


def _checked(row: SessionRow, taken: Sequence[StepRow]) -> Journalled | StoreError:
    indices = [step.step_index for step in taken]
    if indices != [*range(len(taken))]:
        missing = next(at for at, index in enumerate(indices) if at != index)
        return StoreError(
            f"the journal's record of session {row.session_id} is damaged: it has "
            f"{len(taken)} steps up to index {indices[-1]}, and step {missing} is missing",
            session_id=row.session_id,
        )
    return _journalled(row, taken)


def _journalled(row: SessionRow, taken: Sequence[StepRow]) -> Journalled:
    latest = max((row.lease_expires_at, *(step.lease_expires_at for step in taken)))
    return Journalled(replace(row, lease_expires_at=latest), tuple(taken))


def _insert(
    connection: Connection, statement: Callable[[int, str], str], rows: Sequence[_Cells]
) -> None:
    mark, num_inserted = _mark(connection), 0
    for some in _slices(rows):
        values = tuple(chain.from_iterable(some))
        num_inserted += connection.exec_driver_sql(statement(len(some), mark), values).rowcount
    if num_inserted < len(rows):
        raise SomeExist


def _set_later(
    connection: Connection, column: str, condition: str, values: Mapping[str, float]
) -> None:
    """Set a column of sessions where it stands in this condition to the value given."""
    mark = _mark(connection)
    for some in _slices(sorted(values.items())):
        rows = ", ".join([f"({mark}, {mark})"] * len(some))
        connection.exec_driver_sql(
            f"UPDATE {sessions.name} SET {column} = given.column2 FROM (VALUES {rows}) AS given "
            f"WHERE {sessions.name}.session_id = given.column1 "
            f"AND {sessions.name}.{column} {condition}",
            tuple(chain.from_iterable(some)),
        )


@lru_cache(maxsize=2 * ROWS_AT_ONCE)
def _insert_sessions(num_rows: int, mark: str) -> str:
    return _insert_statement(sessions.name, _SESSION, [mark] * len(_SESSION), num_rows)


@lru_cache(maxsize=2 * ROWS_AT_ONCE)
def _insert_steps(num_rows: int, mark: str) -> str:
    # Of a session that is not there the number is NULL, which the column refuses.
    number = f"(SELECT session_number FROM {sessions.name} WHERE session_id = {mark})"
    columns = ("session_number", *_STEP[1:])
    return _insert_statement(steps.name, columns, [number] + [mark] * len(_STEP[1:]), num_rows)


def _insert_statement(
    table: str, columns: Sequence[str], cells: Sequence[str], num_rows: int
) -> str:
    rows = ", ".join([f"({', '.join(cells)})"] * num_rows)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {rows} ON CONFLICT DO NOTHING"


def _slices(rows: Sequence[_Cells]) -> Iterator[Sequence[_Cells]]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[start : start + ROWS_AT_ONCE]


def _mark(connection: Connection) -> str:
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"
