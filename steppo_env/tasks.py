"""Task sets: the tasks of an environment by split, by index and by id."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from steppo_env.errors import UnknownTask
from steppo_env.mdp import Task

__all__ = ["GeneratedTasks", "ListedTasks", "TaskSet"]

TaskT = TypeVar("TaskT", bound=Task)


class TaskSet(ABC, Generic[TaskT]):
    """Tasks with a stable order in each split. Immutable, shared by every episode of a process.

    Attributes:
        version: Changes when the data behind the tasks changes; equal data gives an equal version.
    """

    version: str

    @property
    @abstractmethod
    def splits(self) -> Mapping[str, int]:
        """Number of tasks by split."""

    @abstractmethod
    def at(self, split: str, index: int) -> TaskT:
        """Return the task at a place in a split.

        Raises:
            UnknownTask: No such split, or the index is not in [0, number of tasks).
        """

    @abstractmethod
    def get(self, task_id: str) -> TaskT:
        """Return a task by id.

        Raises:
            UnknownTask: No such task.
        """

    def _check_place(self, split: str, index: int) -> None:
        num_tasks = self.splits.get(split)
        if num_tasks is None:
            known = ", ".join(f"{name} ({count})" for name, count in self.splits.items())
            raise UnknownTask(
                f"there is no split {split[:80]!r}; the splits are: {known or 'none'}"
            )
        if not 0 <= index < num_tasks:
            range_ = f"tasks 0 to {num_tasks - 1}" if num_tasks else "no tasks"
            raise UnknownTask(f"split {split} has {range_}; there is no task {index}")


class ListedTasks(TaskSet[TaskT]):
    """Tasks that are all in memory, in the order given."""

    def __init__(self, tasks: Iterable[TaskT], version: str) -> None:
        self.version = version
        self._by_id: dict[str, TaskT] = {}
        self._by_split: dict[str, list[TaskT]] = {}
        for task in tasks:
            if task.task_id in self._by_id:
                raise ValueError(f"task id {task.task_id!r} appears twice")
            self._by_id[task.task_id] = task
            self._by_split.setdefault(task.split, []).append(task)

    @property
    def splits(self) -> Mapping[str, int]:
        return {split: len(tasks) for split, tasks in self._by_split.items()}

    def at(self, split: str, index: int) -> TaskT:
        self._check_place(split, index)
        return self._by_split[split][index]

    def get(self, task_id: str) -> TaskT:
        task = self._by_id.get(task_id)
        if task is None:
            raise UnknownTask(f"there is no task {task_id[:200]!r}; task ids are listed by split")
        return task


class GeneratedTasks(TaskSet[TaskT]):
    """Tasks made on demand from their split and index; ids are `split/index`.

    >>> tasks = GeneratedTasks({"dev": 2}, lambda split, index: Task(f"{split}/{index}", split), "1")
    >>> tasks.get("dev/1").task_id
    'dev/1'
    """

    def __init__(
        self, splits: Mapping[str, int], make: Callable[[str, int], TaskT], version: str
    ) -> None:
        self.version = version
        self._splits = dict(splits)
        self._make = make

    @property
    def splits(self) -> Mapping[str, int]:
        return self._splits

    def at(self, split: str, index: int) -> TaskT:
        self._check_place(split, index)
        return self._make(split, index)

    def get(self, task_id: str) -> TaskT:
        split, _, index = task_id.rpartition("/")
        # Only the canonical spelling is an id: "dev/01" and "dev/1" must not be two names of one.
        if not (index.isascii() and index.isdigit() and index == str(int(index[:18]))):
            raise UnknownTask(
                f"a task id here is split/index, such as dev/0; got {task_id[:200]!r}"
            )
        return self.at(split, int(index))
