"""Which tasks a run plays."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from steppo_client.env_client import EnvClient
from steppo_env.errors import InvalidInput

__all__ = ["TaskRef", "list_task_refs"]

PAGE = 1000


@dataclass(frozen=True, slots=True)
class TaskRef:
    """A task to play. `options` go to the environment as they are."""

    env_id: str
    task_id: str
    split: str
    labels: Mapping[str, str | int] = field(default_factory=dict)
    options: Mapping[str, JsonValue] = field(default_factory=dict)


async def list_task_refs(
    client: EnvClient,
    env_id: str,
    split: str,
    num_tasks: int,
    options: Mapping[str, JsonValue] | None = None,
) -> list[TaskRef]:
    """Return the first `num_tasks` tasks of a split.

    Raises:
        InvalidInput: The split has fewer.
    """
    refs: list[TaskRef] = []
    cursor: str | None = None
    while len(refs) < num_tasks:
        limit = min(PAGE, num_tasks - len(refs))
        page = await client.tasks(env_id, split, cursor=cursor, limit=limit, options=options)
        if page.num_tasks < num_tasks or not page.tasks:
            raise InvalidInput(
                f"{num_tasks} tasks are asked for, but split {split} of {env_id} has "
                f"{page.num_tasks}"
            )
        refs += [
            TaskRef(env_id, task.task_id, split, task.labels, options or {}) for task in page.tasks
        ]
        cursor = page.next_cursor
    return refs
