"""The built-in world: invented people, places and works, passages about them, and questions."""

from steppo_multihop_qa.world.generate import World, make_world
from steppo_multihop_qa.world.questions import Derivation, WorldQuestion

__all__ = ["Derivation", "World", "WorldQuestion", "make_world"]
