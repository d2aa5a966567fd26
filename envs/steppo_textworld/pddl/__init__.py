"""Games of TextWorld-PDDL (ALFWorld): a planning problem for a world, a grammar for its words."""

from steppo_textworld.pddl.game import PddlGame, read_game
from steppo_textworld.pddl.run import PddlRun

__all__ = ["PddlGame", "PddlRun", "read_game"]
