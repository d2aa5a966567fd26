"""Find, read and compare stored rows within a transaction that the caller holds."""

from collections.abc import Sequence
from typing import cast

from sqlalchemy import Connection, RowMapping, select

from steppo_env.errors import NotFound, RecordConflict, UnknownTrajectory
from steppo_env.mdp import Trajectory
from steppo_env.store.codec import Row, decode_trajectory
from steppo_env.store.json_text import sorted_json
from steppo_env.store.schema import runs, steps, trajectories
from steppo_env.store.validation import is_text

__all__ = [
    "check_same",
    "conflict",
    "find_by_prefix",
    "find_run",
    "find_trajectory",
    "load_trajectories",
    "row_differences",
    "unknown_run",
]

MIN_PREFIX = 6
"""Characters of an id that must be given before the rest is guessed."""
MAX_SHOWN = 5
"""Candidates or differences that a message names."""
_JSON_COLUMNS = frozenset(
    {
        "config",
        "env_versions",
        "final_messages",
        "info",
        "labels",
        "messages",
        "options",
        "reward_terms",
        "tool_calls",
        "tools",
    }
)


def find_trajectory(connection: Connection, trajectory_id: str) -> RowMapping | None:
    """Return the row of exactly this id, or None."""
    if not is_text(trajectory_id):
        return None
    query = select(trajectories).where(trajectories.c.trajectory_id == trajectory_id)
    return connection.execute(query).mappings().first()


def find_by_prefix(connection: Connection, prefix: str, location: str) -> RowMapping:
    """Return the row of the one id that begins so.

    Raises:
        UnknownTrajectory: No id begins so, or several do; or the prefix is too short.
    """
    ids: Sequence[str] = ()
    if len(prefix) >= MIN_PREFIX and is_text(prefix):
        column = trajectories.c.trajectory_id
        # SQLite orders text by its UTF-8 bytes, so what begins with the prefix comes right here.
        query = select(column).where(column >= prefix).order_by(column).limit(MAX_SHOWN + 1)
        found = connection.execute(query).scalars().all()
        ids = [candidate for candidate in found if candidate.startswith(prefix)]
    if not ids:
        raise UnknownTrajectory(
            f"no trajectory {prefix!r} in the store at {location}; give a whole id, or at least "
            f"its first {MIN_PREFIX} characters. The store's list names them",
            trajectory_id=prefix,
        )
    row = find_trajectory(connection, ids[0])
    if len(ids) > 1 or row is None:
        more = " and more" if len(ids) > MAX_SHOWN else ""
        shown = ids[:MAX_SHOWN]
        raise UnknownTrajectory(
            f"{prefix!r} begins the ids of several trajectories: {', '.join(shown)}{more}; give "
            "more characters",
            trajectory_id=prefix,
            candidates=[*shown],
        )
    return row


def load_trajectories(connection: Connection, rows: Sequence[RowMapping]) -> tuple[Trajectory, ...]:
    """Return the trajectories of rows, with all their steps in one query."""
    step_rows: dict[int, list[RowMapping]] = {row["sequence"]: [] for row in rows}
    query = (
        select(steps)
        .where(steps.c.trajectory_sequence.in_(step_rows))
        .order_by(steps.c.trajectory_sequence, steps.c.step_index)
    )
    for step in connection.execute(query).mappings():
        step_rows[step["trajectory_sequence"]].append(step)
    return tuple(decode_trajectory(row, step_rows[row["sequence"]]) for row in rows)


def check_same(
    connection: Connection, stored: RowMapping, row: Row, step_rows: Sequence[Row]
) -> None:
    """Compare a stored trajectory with the rows of one that has its id.

    Raises:
        RecordConflict: They differ; names the columns and steps.
    """
    trajectory_id = stored["trajectory_id"]
    differences: list[str] = row_differences(stored, row)
    query = select(steps).where(steps.c.trajectory_sequence == stored["sequence"])
    stored_steps = connection.execute(query.order_by(steps.c.step_index)).mappings().all()
    for old, new in zip(stored_steps, step_rows):
        columns = row_differences(old, new)
        differences += [f"{column} of step {old['step_index']}" for column in columns]
    if differences:
        raise conflict("trajectory", trajectory_id, differences)


def find_run(connection: Connection, run_id: str) -> RowMapping | None:
    """Return the row of a run, or None."""
    if not is_text(run_id):
        return None
    return connection.execute(select(runs).where(runs.c.run_id == run_id)).mappings().first()


def conflict(kind: str, name: str, differences: Sequence[str]) -> RecordConflict:
    """Return the error for a different record under a stored id."""
    shown = ", ".join(differences[:MAX_SHOWN])
    more = len(differences) - MAX_SHOWN
    rest = f" and {more} more" if more > 0 else ""
    return RecordConflict(
        f"{kind} {name!r} is stored with another {shown}{rest}; give the new record an id of its "
        "own",
        differences=[*differences],
    )


def unknown_run(run_id: str) -> NotFound:
    """Return the error for a run that was never started."""
    return NotFound(f"no run {run_id!r} in the store; start_run records one", run_id=run_id)


def row_differences(stored: RowMapping, given: Row) -> list[str]:
    """Return the columns of `given` that `stored` holds otherwise; the order of JSON keys is free."""
    return [
        column
        for column, value in given.items()
        if stored[column] != value
        and not (
            column in _JSON_COLUMNS
            and sorted_json(stored[column]) == sorted_json(cast(str | None, value))
        )
    ]
