"""Which trajectories a caller means, in which order, and what they add up to.

Pages run from the newest append to the oldest and are cut by sequence number, never by OFFSET: a
trajectory appended while somebody pages shifts nothing, and each one that was there at the first
page is seen exactly once.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from sqlalchemy import ColumnElement, Integer, RowMapping, Select, case, cast, func, select

from steppo_env.errors import InvalidInput
from steppo_env.mdp import StopReason
from steppo_env.store.json_text import load_json
from steppo_env.store.schema import trajectories
from steppo_env.store.validation import MAX_INTEGER, check_text

__all__ = [
    "GROUP_COLUMNS",
    "GroupSummary",
    "TrajectoryFilter",
    "TrajectoryPage",
    "TrajectorySummary",
    "decode_cursor",
    "decode_groups",
    "decode_summary",
    "encode_cursor",
    "select_groups",
    "select_summaries",
    "where_clauses",
]

GROUP_COLUMNS = ("env_id", "task_id", "split", "policy", "run_id", "group_id", "stop_reason")
"""What `summarize` can group by."""

_CURSOR = re.compile(r"([0-9a-f]{1,16})\.([0-9a-f]{8})")
_SUMMARY_COLUMNS = (
    "trajectory_id",
    "group_id",
    "env_id",
    "task_id",
    "split",
    "seed",
    "policy",
    "run_id",
    "stop_reason",
    "success",
    "error",
    "labels",
    "trainable",
    "num_steps",
    "return_",
    "started_at",
    "ended_at",
)


@dataclass(frozen=True, slots=True)
class TrajectoryFilter:
    """Which trajectories are meant: those that satisfy every field that is not None.

    Attributes:
        trainable: False for those that infrastructure ended.
        success: The environment's verdict; those without one satisfy neither True nor False.
        min_return: Least undiscounted return, inclusive.
        max_return: Greatest undiscounted return, inclusive.
    """

    run_id: str | None = None
    env_id: str | None = None
    task_id: str | None = None
    split: str | None = None
    policy: str | None = None
    group_id: str | None = None
    stop_reason: StopReason | None = None
    trainable: bool | None = None
    success: bool | None = None
    min_return: float | None = None
    max_return: float | None = None


@dataclass(frozen=True, slots=True)
class TrajectorySummary:
    """A trajectory without its steps; the fields mean what they mean in `Trajectory`."""

    trajectory_id: str
    group_id: str
    env_id: str
    task_id: str
    split: str
    seed: int
    policy: str
    run_id: str | None
    stop_reason: StopReason
    success: bool | None
    error: str | None
    labels: Mapping[str, str | int]
    trainable: bool
    num_steps: int
    return_: float
    started_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class TrajectoryPage:
    """One page of trajectories, newest first; `next_cursor` is None on the last."""

    items: tuple[TrajectorySummary, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """What the trajectories of one group add up to, each trajectory weighing the same.

    The rate and the means are over trainable trajectories, because one that infrastructure ended
    measures nothing; they are None where there is none.

    Attributes:
        group: The value of each column that was grouped by.
        episodes: Trajectories: terminated + truncated + failed.
        steps: Steps of all of them.
        trainable: Trajectories that the policy or the MDP ended.
        successes: Trainable trajectories with success True.
        success_rate: successes / trainable.
        mean_return: Undiscounted.
        terminated: Trajectories that reached a terminal state.
        truncated: Trajectories cut short by the step limit or the environment.
        failed: Trajectories that infrastructure ended.
    """

    group: Mapping[str, str | None]
    episodes: int
    steps: int
    trainable: int
    successes: int
    success_rate: float | None
    mean_return: float | None
    mean_steps: float | None
    terminated: int
    truncated: int
    failed: int


def where_clauses(filter_: TrajectoryFilter) -> list[ColumnElement[bool]]:
    """Return the SQL conditions of a filter.

    Raises:
        InvalidInput: A field holds what no stored trajectory could.
    """
    table = trajectories.c
    clauses: list[ColumnElement[bool]] = []
    for name in ("run_id", "env_id", "task_id", "split", "policy", "group_id"):
        text: str | None = getattr(filter_, name)
        if text is not None:
            check_text(text, f"filter: {name}")
            clauses.append(table[name] == text)
    if filter_.stop_reason is not None:
        clauses.append(table.stop_reason == _stop_reason(filter_.stop_reason).value)
    if filter_.trainable is not None:
        clauses.append(table.trainable == filter_.trainable)
    if filter_.success is not None:
        clauses.append(table.success == filter_.success)
    if filter_.min_return is not None:
        clauses.append(table.return_ >= _bound(filter_.min_return, "min_return"))
    if filter_.max_return is not None:
        clauses.append(table.return_ <= _bound(filter_.max_return, "max_return"))
    return clauses


def _bound(value: float, name: str) -> float:
    if math.isnan(value):
        raise InvalidInput(f"filter: {name} must be a number; got {value}")
    return float(value)


def _stop_reason(value: str) -> StopReason:
    try:
        return StopReason(value)
    except ValueError:
        known = ", ".join(reason.value for reason in StopReason)
        raise InvalidInput(f"filter: stop_reason must be one of {known}; got {value!r}") from None


def encode_cursor(sequence: int, filter_: TrajectoryFilter) -> str:
    """Return the cursor of the page that follows `sequence`; it fits its filter only."""
    return f"{sequence:x}.{_filter_key(filter_)}"


def decode_cursor(cursor: str, filter_: TrajectoryFilter) -> int:
    """Return the sequence number after which a page begins.

    Raises:
        InvalidInput: Not a cursor, or the cursor of another filter.
    """
    found = _CURSOR.fullmatch(cursor)
    sequence = int(found[1], 16) if found else 0
    if found is None or sequence > MAX_INTEGER:
        raise InvalidInput(
            f"cursor must be the next_cursor of an earlier page; got {cursor!r}. Leave it out to "
            "begin at the newest trajectory"
        )
    if found[2] != _filter_key(filter_):
        raise InvalidInput(
            f"cursor {cursor!r} belongs to another filter; page with one filter from the first "
            "page to the last"
        )
    return sequence


def _filter_key(filter_: TrajectoryFilter) -> str:
    return blake2b(repr(filter_).encode(errors="replace"), digest_size=4).hexdigest()


def select_summaries(filter_: TrajectoryFilter) -> Select[Any]:
    """Return the query for summaries and their sequence numbers, newest first."""
    return (
        select(trajectories.c.sequence, *(trajectories.c[name] for name in _SUMMARY_COLUMNS))
        .where(*where_clauses(filter_))
        .order_by(trajectories.c.sequence.desc())
    )


def decode_summary(row: RowMapping) -> TrajectorySummary:
    """Return the summary of a row."""
    values = {name: row[name] for name in _SUMMARY_COLUMNS}
    values["stop_reason"] = StopReason(row["stop_reason"])
    values["labels"] = load_json(row["labels"])
    return TrajectorySummary(**values)


def select_groups(filter_: TrajectoryFilter, by: Sequence[str]) -> Select[Any]:
    """Return the query that adds trajectories up by the columns named.

    Raises:
        InvalidInput: A column that cannot be grouped by, or one named twice.
    """
    if len(set(by)) < len(by) or not set(by) <= set(GROUP_COLUMNS):
        raise InvalidInput(
            f"by must name different columns of {', '.join(GROUP_COLUMNS)}; got {list(by)!r}"
        )
    columns = [trajectories.c[name] for name in by]
    table = trajectories.c
    trainable = table.trainable.is_(True)
    reason = table.stop_reason
    limits = [StopReason.STEP_LIMIT.value, StopReason.TRUNCATED.value]
    query = select(
        *columns,
        func.count().label("episodes"),
        func.coalesce(func.sum(table.num_steps), 0).label("steps"),
        _count(trainable).label("trainable"),
        _count(trainable & table.success.is_(True)).label("successes"),
        func.avg(case((trainable, table.return_))).label("mean_return"),
        func.avg(case((trainable, table.num_steps))).label("mean_steps"),
        _count(reason == StopReason.TERMINATED.value).label("terminated"),
        _count(reason.in_(limits)).label("truncated"),
    ).where(*where_clauses(filter_))
    return query.group_by(*columns) if columns else query.having(func.count() > 0)


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return cast(func.coalesce(func.sum(case((condition, 1), else_=0)), 0), Integer)


def decode_groups(rows: Sequence[RowMapping], by: Sequence[str]) -> tuple[GroupSummary, ...]:
    """Return the summaries of grouped rows, ordered by group; no value comes before any value."""
    groups = [_decode_group(row, by) for row in rows]
    return tuple(
        sorted(
            groups, key=lambda it: [(value is not None, value or "") for value in it.group.values()]
        )
    )


def _decode_group(row: RowMapping, by: Sequence[str]) -> GroupSummary:
    trainable, successes = row["trainable"], row["successes"]
    mean_steps = row["mean_steps"]
    return GroupSummary(
        group={name: row[name] for name in by},
        episodes=row["episodes"],
        steps=int(row["steps"]),
        trainable=trainable,
        successes=successes,
        success_rate=successes / trainable if trainable else None,
        mean_return=row["mean_return"],
        mean_steps=None if mean_steps is None else float(mean_steps),
        terminated=row["terminated"],
        truncated=row["truncated"],
        failed=row["episodes"] - trainable,
    )
