"""Tasks and options: a task is a game, made when it is first played or found in a pack."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from steppo_env.errors import UnknownTask
from steppo_env.mdp import Task
from steppo_env.options import EnvOptions, OperatorOnly
from steppo_env.tasks import GeneratedTasks, ListedTasks, TaskSet
from steppo_textworld.engine import TEXTWORLD_VERSION
from steppo_textworld.games import RECIPE
from steppo_textworld.levels import (
    FAMILIES,
    Family,
    GameSpec,
    Instructions,
    problem_with,
    quest_length,
)
from steppo_textworld.opening import AnyGame
from steppo_textworld.packs import Goal, Pack

__all__ = [
    "RewardKind",
    "TextWorldOptions",
    "TextWorldTask",
    "TextWorldTasks",
    "pack_tasks",
]

NUM_TRAIN = 1000
NUM_HELD_OUT = 100
"""Games of dev, and of test."""
MIN_STEP_LIMIT = 30
PACK_STEP_LIMIT = 50
"""ALFWorld's own limit; every walkthrough of the known packs is shorter."""
GENERATED_ONLY = ("family", "level", "instructions", "num_train")
"""Options that mean nothing for ready-made games."""


class RewardKind(StrEnum):
    """What is rewarded."""

    WIN = "win"
    """1 on winning, else 0."""
    SCORE = "score"
    """The points of the step over the highest score of the game, so that winning returns 1."""
    INTERMEDIATE = "intermediate"
    """Winning, and beside it TextWorld's sign of progress after each step; for generated games."""


class TextWorldOptions(EnvOptions):
    """Options of `steppo/TextWorld-v0`."""

    step_limit: int = Field(
        default=MIN_STEP_LIMIT,
        ge=1,
        le=1000,
        description=(
            "Steps after which an episode is truncated; when not given, 30 or three times the "
            "length of the level's quest, whichever is more; for the games of a pack 50."
        ),
    )
    data: Annotated[Path | None, OperatorOnly()] = Field(
        default=None,
        description="Folder of ready-made games: ALFWorld's, or compiled games with walkthroughs; "
        "None makes games.",
    )
    goal: Goal = Field(
        default=Goal.TEMPLATE,
        description="ALFWorld: whether the goal is told in the game's words or in a person's.",
    )
    family: Family = Field(
        default=Family.TREASURE_HUNTER,
        description="The kind of game: coin_collector, treasure_hunter, simple, cooking or custom.",
    )
    level: int = Field(
        default=0,
        ge=0,
        le=300,
        description=(
            "Difficulty within the family: coin_collector 1 to 300, treasure_hunter 1 to 30, "
            "simple 1 to 3, cooking 1 to 10, custom 1 to 33; 0 is the family's default."
        ),
    )
    num_train: int = Field(
        default=NUM_TRAIN,
        ge=1,
        le=1_000_000,
        description="Games in the train split; each takes about 0.5 MB once it has been played.",
    )
    instructions: Instructions = Field(
        default=Instructions.GOAL,
        description="What the objective tells: the goal, or a walkthrough with every action.",
    )
    reward: RewardKind = Field(
        default=RewardKind.WIN,
        description="win: 1 on winning, else 0; score: the share of the points made in the step; "
        "intermediate: win, and progress by TextWorld's policy.",
    )
    show_admissible: bool = Field(
        default=True,
        description="Whether the state lists the commands that would do something.",
    )
    history: int = Field(
        default=20,
        ge=0,
        le=1000,
        description="Number of past turns that a rebuilt state shows.",
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Fill in what depends on the family. Values that are wrong are left to the fields."""
        if not isinstance(values, Mapping):
            return values
        filled = dict(values)
        if filled.get("data") is not None:
            given = [name for name in GENERATED_ONLY if name in filled]
            if given:
                raise ValueError(
                    f"{', '.join(given)} say how games are made; with data they are ready-made, so "
                    "leave these options out"
                )
            filled.setdefault("step_limit", PACK_STEP_LIMIT)
            return filled
        family = filled.get("family", Family.TREASURE_HUNTER)
        level = filled.get("level", 0)
        if family not in list(Family) or not isinstance(level, int):
            return filled
        level = level or FAMILIES[Family(family)].default_level
        if level > 0 and problem_with(Family(family), level) is None:
            filled["level"] = level
            length = quest_length(Family(family), level)
            filled.setdefault("step_limit", max(MIN_STEP_LIMIT, 3 * length))
        return filled

    @model_validator(mode="after")
    def _check(self) -> "TextWorldOptions":
        if self.data is not None:
            if self.reward is RewardKind.INTERMEDIATE:
                raise ValueError(
                    "reward=intermediate needs the quests of a generated game; with data use win "
                    "or score"
                )
            return self
        if self.goal is not Goal.TEMPLATE:
            raise ValueError("goal chooses between goals of ALFWorld's games; it needs data")
        problem = problem_with(self.family, self.level)
        if problem is not None:
            raise ValueError(problem)
        return self


_FIRST = GameSpec(Family.TREASURE_HUNTER, 1, Instructions.GOAL, "train", 0)


@dataclass(frozen=True, slots=True)
class TextWorldTask(Task):
    """A game to win. The walkthrough of a compiled game is private, like all of `spec`."""

    spec: AnyGame = _FIRST


class TextWorldTasks(TaskSet[TextWorldTask]):
    """The games of one family and level; ids are `family-level/split/index`."""

    def __init__(
        self, family: Family, level: int, instructions: Instructions, num_train: int = NUM_TRAIN
    ) -> None:
        self._kind = GameSpec(family, level, instructions, "train", 0).kind
        self.version = f"{self._kind}-textworld-{TEXTWORLD_VERSION}-recipe-{RECIPE}"

        def make(split: str, index: int) -> TextWorldTask:
            spec = GameSpec(family, level, instructions, split, index)
            labels: dict[str, str | int] = {"family": family.value, "level": level}
            return TextWorldTask(f"{spec.kind}/{split}/{index}", split, labels, spec)

        splits = {"train": num_train, "dev": NUM_HELD_OUT, "test": NUM_HELD_OUT}
        self._numbered = GeneratedTasks(splits, make, self.version)

    @property
    def splits(self) -> Mapping[str, int]:
        return self._numbered.splits

    def at(self, split: str, index: int) -> TextWorldTask:
        return self._numbered.at(split, index)

    def get(self, task_id: str) -> TextWorldTask:
        kind, _, place = task_id.partition("/")
        if kind != self._kind:
            raise UnknownTask(
                f"task ids here are {self._kind}/split/index, such as {self._kind}/dev/0; got "
                f"{task_id[:200]!r} (other families and levels are options of the environment)"
            )
        return self._numbered.get(place)


def pack_tasks(pack: Pack) -> TaskSet[TextWorldTask]:
    """Return the games of a pack as tasks, in the order of their ids."""
    tasks = (
        TextWorldTask(listed.task_id, listed.split, listed.labels, listed.game)
        for listed in pack.games
    )
    return ListedTasks(tasks, pack.version)
