"""Tasks of KeyDoor: a grid with an agent, a key and a door in three different cells."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from steppo_env.errors import EnvError
from steppo_env.keys import seed_words
from steppo_env.mdp import Task
from steppo_env.options import EnvOptions
from steppo_env.tasks import GeneratedTasks

__all__ = ["Cell", "KeyDoorOptions", "KeyDoorTask", "blocks", "keydoor_tasks"]

Cell = tuple[int, int]
"""Row and column, counted from 0 at the north-west corner."""

SPLITS = {"train": 100_000, "dev": 512, "test": 512}
MAX_DRAWS = 1_000
"""Ten are enough on average; all of them fail once in 1e45 tasks."""


class KeyDoorOptions(EnvOptions):
    """Options of `steppo/KeyDoor-v0`."""

    step_limit: int = Field(
        default=24,
        ge=1,
        le=1000,
        description="Turns before the episode is cut short; the state shows how many are left.",
    )
    size: int = Field(default=6, ge=2, le=20, description="Rows and columns of the grid.")


@dataclass(frozen=True, slots=True)
class KeyDoorTask(Task):
    """Where everything is at the start."""

    agent: Cell = (0, 0)
    key: Cell = (0, 0)
    door: Cell = (0, 0)


def keydoor_tasks(size: int) -> GeneratedTasks[KeyDoorTask]:
    """Return the tasks on a grid of `size` x `size` cells. No layout is in two splits."""

    def make(split: str, index: int) -> KeyDoorTask:
        rng = np.random.default_rng(seed_words("keydoor", size, split, index))
        for _ in range(MAX_DRAWS):
            cells = [int(cell) for cell in rng.choice(size * size, size=3, replace=False)]
            if _split_of(size, cells) == split:
                break
        else:
            raise EnvError(f"a grid of size {size} has no layout in split {split}")
        agent, key, door = (divmod(cell, size) for cell in cells)
        distance = blocks(agent, key) + blocks(key, door)
        return KeyDoorTask(f"{split}/{index}", split, {"distance": distance}, agent, key, door)

    return GeneratedTasks(SPLITS, make, version=f"keydoor-{size}-1")


def _split_of(size: int, cells: Sequence[int]) -> str:
    """Return the split that a layout belongs to: a tenth each is dev and test."""
    tenth = seed_words("keydoor split", size, *cells)[0] % 10
    return {0: "dev", 1: "test"}.get(tenth, "train")


def blocks(a: Cell, b: Cell) -> int:
    """Return the number of moves between two cells."""
    return abs(a[0] - b[0]) + abs(a[1] - b[1])
