"""Environments and tasks as everybody may see them, for the server and the client alike."""

import inspect
from collections.abc import Mapping
from typing import Any

from steppo_env.catalogue import EnvSpec
from steppo_env.errors import EnvError, InvalidInput, MissingDependency
from steppo_env.options import operator_fields
from steppo_env.registry import env_class
from steppo_env.wire import EnvDetail, EnvSummary, TaskModel, TaskPage

__all__ = ["describe", "list_tasks", "summarize"]


def summarize(spec: EnvSpec) -> EnvSummary:
    """Return one line about an environment; loads its code but none of its data.

    One that cannot be loaded is described all the same: it must not hide the others of a list.
    """
    try:
        cls = env_class(spec.env_id)
    except (EnvError, MissingDependency) as error:
        return EnvSummary(
            env_id=spec.name,
            registered_id=spec.env_id,
            summary="",
            is_available=False,
            problem=error.detail,
        )
    first_line = (inspect.getdoc(cls) or "").partition("\n")[0]
    return EnvSummary(
        env_id=spec.name, registered_id=spec.env_id, summary=first_line, is_available=True
    )


def describe(
    spec: EnvSpec, options: Mapping[str, Any] | None = None, *, is_operator: bool = False
) -> EnvDetail:
    """Return all about an environment as the options make it; loads its data.

    Raises:
        MissingDependency, MissingData: It cannot be used here.
        InvalidOptions: The options do not fit; see `EnvSpec.make`.
    """
    env = spec.make(options, is_operator=is_operator)
    try:
        options_type = type(env).options_type
        return EnvDetail(
            **summarize(spec).model_dump(),
            splits=dict(env.tasks.splits),
            data_version=env.tasks.version,
            options=options_type.model_json_schema(),
            fixed_options=sorted(operator_fields(options_type) | set(spec.options)),
            step_limit=env.options.step_limit,
        )
    finally:
        env.close()


def list_tasks(
    spec: EnvSpec,
    split: str,
    *,
    limit: int,
    cursor: str | None = None,
    options: Mapping[str, Any] | None = None,
    is_operator: bool = False,
) -> TaskPage:
    """Return the tasks of a split from a cursor on, without their solutions.

    Args:
        options: They can decide which tasks there are (the size of a grid, the family of games).

    Raises:
        UnknownTask: There is no such split.
        InvalidInput: The cursor is not one that this function gave, or the limit is below 1.
        InvalidOptions: The options do not fit; see `EnvSpec.make`.
    """
    if limit < 1:
        raise InvalidInput(f"the limit is at least 1, not {limit}")
    env = spec.make(options, is_operator=is_operator)
    try:
        if split not in env.tasks.splits:
            env.tasks.at(split, 0)  # raises, and says which splits there are
        num_tasks = env.tasks.splits[split]
        start = _read_cursor(cursor, num_tasks)
        end = min(start + limit, num_tasks)
        found = [(index, env.tasks.at(split, index)) for index in range(start, end)]
    finally:
        env.close()
    tasks = [
        TaskModel(task_id=task.task_id, split=split, index=index, labels=dict(task.labels))
        for index, task in found
    ]
    next_cursor = str(end) if end < num_tasks else None
    return TaskPage(tasks=tasks, next_cursor=next_cursor, num_tasks=num_tasks)


def _read_cursor(cursor: str | None, num_tasks: int) -> int:
    if cursor is None:
        return 0
    # Not int() first: it refuses thousands of digits with an error of its own.
    is_number = cursor.isascii() and cursor.isdigit() and len(cursor) <= len(str(num_tasks))
    if not is_number or int(cursor) > num_tasks:
        raise InvalidInput(f"the cursor {cursor[:40]!r} was not given by this list")
    return int(cursor)
