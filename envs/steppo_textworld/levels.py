"""Families of games, their levels, and what one game is made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "FAMILIES",
    "Family",
    "FamilyInfo",
    "GameSpec",
    "Instructions",
    "challenge_settings",
    "problem_with",
    "quest_length",
]


class Family(StrEnum):
    """The challenges of TextWorld."""

    COIN_COLLECTOR = "coin_collector"
    """Walk a chain of rooms, with dead ends from level 101, and take the coin at its end."""
    TREASURE_HUNTER = "treasure_hunter"
    """Find the named object in a maze; taking the wrong one loses."""
    SIMPLE = "simple"
    """Get out of a locked bedroom, fetch the named food and put it on the stove."""
    COOKING = "cooking"
    """Read the recipe, gather and prepare its ingredients, and eat the meal; mistakes lose."""
    CUSTOM = "custom"
    """Do what TextWorld's general generator asks for: any of its actions, one or several quests."""


class Instructions(StrEnum):
    """What the objective of a game tells."""

    GOAL = "goal"
    """What is to be achieved."""
    WALKTHROUGH = "walkthrough"
    """Every action on the way, one after the other."""


@dataclass(frozen=True, slots=True)
class GameSpec:
    """What a game is made from; equal specs give the same game, byte for byte.

    Attributes:
        family: The challenge.
        level: Difficulty within the family.
        instructions: What the objective tells.
        split: Each split draws its seeds from a space of its own; where a family has other foods or
            recipes for testing, they follow the split.
        index: Place in the split.
    """

    family: Family
    level: int
    instructions: Instructions
    split: str
    index: int

    @property
    def kind(self) -> str:
        """What the games of a task set have in common, as it stands in ids and folder names."""
        told = "" if self.instructions is Instructions.GOAL else f"-{self.instructions}"
        return f"{self.family}-{self.level}{told}"


@dataclass(frozen=True, slots=True)
class FamilyInfo:
    """Bounds of a family.

    Attributes:
        last_level: Levels are 1 to this.
        default_level: The level when none is asked for.
    """

    last_level: int
    default_level: int


FAMILIES: Mapping[Family, FamilyInfo] = {
    Family.COIN_COLLECTOR: FamilyInfo(last_level=300, default_level=105),
    Family.TREASURE_HUNTER: FamilyInfo(last_level=30, default_level=8),
    Family.SIMPLE: FamilyInfo(last_level=3, default_level=2),
    Family.COOKING: FamilyInfo(last_level=10, default_level=3),
    Family.CUSTOM: FamilyInfo(last_level=33, default_level=5),
}

MAX_ROOMS = 100
"""A Z-machine story has no room for more."""

_SIMPLE_REWARDS = ("dense", "balanced", "sparse")

# Each level asks for one more thing: ingredients (recipe), how many of them have to be fetched
# (take), closed doors and containers (open), cooking, cutting, and rooms (go).
_COOKING: tuple[Mapping[str, int | bool], ...] = (
    {"recipe": 1, "take": 0, "open": False, "cook": False, "cut": False, "go": 1},
    {"recipe": 1, "take": 1, "open": True, "cook": False, "cut": False, "go": 1},
    {"recipe": 1, "take": 1, "open": True, "cook": True, "cut": False, "go": 1},
    {"recipe": 1, "take": 1, "open": True, "cook": True, "cut": True, "go": 1},
    {"recipe": 2, "take": 2, "open": True, "cook": True, "cut": True, "go": 1},
    {"recipe": 1, "take": 1, "open": True, "cook": True, "cut": False, "go": 6},
    {"recipe": 2, "take": 2, "open": True, "cook": True, "cut": True, "go": 6},
    {"recipe": 3, "take": 3, "open": True, "cook": True, "cut": True, "go": 6},
    {"recipe": 3, "take": 3, "open": True, "cook": True, "cut": True, "go": 9},
    {"recipe": 3, "take": 3, "open": True, "cook": True, "cut": True, "go": 12},
)
_COOKING_SPLITS = {"train": "train", "dev": "valid", "test": "test"}


_BRANCHED = {31: (5, 4), 32: (6, 5), 33: (8, 6)}
"""Rooms and commands of the levels whose quest has two branches. TextWorld finds no shorter one, and
searches for minutes for a longer one or a third branch."""


def problem_with(family: Family, level: int) -> str | None:
    """Return why a family has no such level, or None when it has."""
    last = FAMILIES[family].last_level
    if not 1 <= level <= last:
        return f"{family} has levels 1 to {last}, not {level}"
    if family is Family.COIN_COLLECTOR:
        num_rooms = quest_length(family, level) * (1 + (level - 1) // 100)
        if num_rooms > MAX_ROOMS:
            return f"{family} level {level} has {num_rooms} rooms; a game holds {MAX_ROOMS}"
    return None


def challenge_settings(spec: GameSpec) -> dict[str, object]:
    """Return the settings of TextWorld's challenge for a game.

    Those of the family `custom` are attributes of TextWorld's `GameOptions`, as `tw-make custom`
    sets them.
    """
    if spec.family is Family.CUSTOM:
        return {**_custom_settings(spec.level)}
    if spec.family is Family.SIMPLE:
        told = "detailed" if spec.instructions is Instructions.WALKTHROUGH else "brief"
        return {
            "rewards": _SIMPLE_REWARDS[spec.level - 1],
            "goal": told,
            "test": spec.split == "test",
        }
    if spec.family is Family.COOKING:
        return {
            **_COOKING[spec.level - 1],
            "drop": False,
            "recipe_seed": 0,
            "split": _COOKING_SPLITS[spec.split],
        }
    return {"level": spec.level}


def _custom_settings(level: int) -> dict[str, int]:
    """Return the settings of a level: ten each of one, two and three quests, then two branches.

    Within the tens the world grows by the level, and there are two objects for each room. A single
    quest has as many commands as its place; where there are several, each has half of that.
    """
    if level in _BRANCHED:
        num_rooms, length = _BRANCHED[level]
        num_quests, breadth = 1, 2
    else:
        place = (level - 1) % 10 + 1
        num_quests, breadth = (level - 1) // 10 + 1, 1
        num_rooms = place + num_quests
        length = place if num_quests == 1 else (place + 1) // 2
    return {
        "nb_rooms": num_rooms,
        "nb_objects": 2 * num_rooms,
        "nb_parallel_quests": num_quests,
        "quest_length": length,
        "quest_breadth": breadth,
    }


def quest_length(family: Family, level: int) -> int:
    """Return about how many commands win a game of a level; measured where TextWorld fixes none."""
    if family is Family.COIN_COLLECTOR:
        return (level - 1) % 100 + 1
    if family is Family.TREASURE_HUNTER:
        first, last = ((1, 5), (2, 10), (3, 20))[(level - 1) // 10]
        return round(first + (last - first) * ((level - 1) % 10) / 9)
    if family is Family.SIMPLE:
        return 12
    if family is Family.CUSTOM:
        settings = _custom_settings(level)
        return settings["nb_parallel_quests"] * settings["quest_length"]
    return _COOKING_LENGTHS[level - 1]


# The longest among the first games of dev: six of a level up to 7, four above.
_COOKING_LENGTHS = (4, 6, 7, 9, 12, 10, 15, 17, 30, 27)
