"""TextWorld: text adventures made and told by TextWorld, one command for each step."""

from steppo_textworld.env import TextWorld
from steppo_textworld.levels import Family, GameSpec, Instructions
from steppo_textworld.packs import Goal
from steppo_textworld.tasks import RewardKind, TextWorldOptions, TextWorldTask

__all__ = [
    "Family",
    "GameSpec",
    "Goal",
    "Instructions",
    "RewardKind",
    "TextWorld",
    "TextWorldOptions",
    "TextWorldTask",
]
