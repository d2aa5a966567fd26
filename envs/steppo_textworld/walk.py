"""One run through a compiled game of which only the walkthrough is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from steppo_textworld.machine import Machine
from steppo_textworld.run import Reply, begins_with

__all__ = ["WalkedGame", "WalkedRun"]

_IDLE = frozenset({"look", "l", "inventory", "i", "examine", "x"})
"""Verbs that change nothing in any of TextWorld's games."""


@dataclass(frozen=True, slots=True)
class WalkedGame:
    """A compiled game without its world model.

    Attributes:
        story_file: The compiled game, a version 8 Z-machine story.
        objective: What the player is told to do.
        walkthrough: Commands that win the game from its start.
        max_score: The highest score.
    """

    story_file: Path
    objective: str
    walkthrough: tuple[str, ...]
    max_score: int


class WalkedRun:
    """One run through a game that only the Z-machine knows.

    The machine's objects change with each turn, also where the world does not, so a state is what
    was done to reach it: no two ways to a state are known to meet.
    """

    admissible: Sequence[str] | None = None

    def __init__(self, game: WalkedGame) -> None:
        self._game = game
        self._machine = Machine(game.story_file)
        self._done: list[str] = []
        self._num_followed: int | None = 0
        self.intro = ""
        self.score = 0

    @classmethod
    def begin(cls, game: WalkedGame) -> "WalkedRun":
        """Return a new run, at the opening of the game."""
        run = cls(game)
        run.intro = run._machine.begin()
        return run

    @classmethod
    def load(cls, game: WalkedGame, saved: Mapping[str, Any]) -> "WalkedRun":
        """Return the run that `save` wrote."""
        run = cls(game)
        run._machine.load(saved["machine"])
        run._done = [*saved["done"]]
        run._num_followed = saved["num_followed"]
        run.score = saved["score"]
        return run

    @property
    def objective(self) -> str:
        """What the player is told to do."""
        return self._game.objective

    @property
    def max_score(self) -> int:
        """The highest score."""
        return self._game.max_score

    @property
    def world(self) -> JsonValue:
        """What was done so far, without what changes nothing."""
        return [*self._done]

    def send(self, command: str) -> Reply:
        """Play one command: printable ASCII, at most 198 characters."""
        told = self._machine.send(command)
        if told.score is not None:
            self.score = told.score
        is_idle = not told.events or command.split()[0] in _IDLE
        if not is_idle:
            self._done.append(command)
        left = self.solution()
        if left is not None and begins_with(left, command):
            self._num_followed = len(self._game.walkthrough) - len(left) + 1
        elif not is_idle:
            self._num_followed = None
        return told.reply

    def solution(self) -> Sequence[str] | None:
        """Return the rest of the walkthrough, or None once it was left."""
        if self._num_followed is None:
            return None
        return self._game.walkthrough[self._num_followed :]

    def policy_length(self) -> int | None:
        """TextWorld's policy needs the world model."""
        return None

    def save(self) -> dict[str, JsonValue]:
        """Return the run as JSON values."""
        return {
            "machine": self._machine.save(),
            "done": [*self._done],
            "num_followed": self._num_followed,
            "score": self.score,
        }
