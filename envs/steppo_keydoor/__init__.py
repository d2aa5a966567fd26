"""KeyDoor, the smallest environment and the worked example for plugin authors."""

from steppo_keydoor.env import KeyDoor
from steppo_keydoor.tasks import KeyDoorOptions, KeyDoorTask

__all__ = ["KeyDoor", "KeyDoorOptions", "KeyDoorTask"]
