"""Tasks of KeyDoor: a grid with an agent, a key and a door in three different cells."""

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from steppo_env.keys import seed_words
from steppo_env.mdp import Task
from steppo_env.options import EnvOptions
from steppo_env.tasks import GeneratedTasks

__all__ = ["Cell", "KeyDoorOptions", "KeyDoorTask", "blocks", "keydoor_tasks"]

Cell = tuple[int, int]
"""Row and column, counted from 0 at the north-west corner."""

SPLITS = {"train": 100_000, "dev": 512, "test": 512}


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
    """Return the tasks on a grid of `size` x `size` cells."""

    def make(split: str, index: int) -> KeyDoorTask:
        rng = np.random.default_rng(seed_words("keydoor", size, split, index))
        cells = rng.choice(size * size, size=3, replace=False)
        agent, key, door = (divmod(int(cell), size) for cell in cells)
        distance = blocks(agent, key) + blocks(key, door)
        return KeyDoorTask(f"{split}/{index}", split, {"distance": distance}, agent, key, door)

    return GeneratedTasks(SPLITS, make, version=f"keydoor-{size}-1")


def blocks(a: Cell, b: Cell) -> int:
    """Return the number of moves between two cells."""
    return abs(a[0] - b[0]) + abs(a[1] - b[1])
