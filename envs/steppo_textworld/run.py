"""One run through a game, however the game is played."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

__all__ = ["Reply", "Run", "begins_with"]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a game answers.

    Attributes:
        text: The words of the game, without banner and bookkeeping.
        is_done: True when an action took place, also one that changed nothing, such as looking.
        won: The game was won by this command.
        lost: The game was lost by this command.
    """

    text: str
    is_done: bool = True
    won: bool = False
    lost: bool = False

    @property
    def has_ended(self) -> bool:
        """True when the game takes no further command."""
        return self.won or self.lost


class Run(Protocol):
    """One run through a game: the world as it is now, and what the player may do about it."""

    @property
    def objective(self) -> str:
        """What the player is told to do."""
        ...

    @property
    def intro(self) -> str:
        """The opening of the game, without banner and objective; known to the run that saw it."""
        ...

    @property
    def max_score(self) -> int:
        """The highest score, at least 1."""
        ...

    @property
    def score(self) -> int:
        """Points so far."""
        ...

    @property
    def admissible(self) -> Sequence[str] | None:
        """The commands that would do something now, sorted; None when nobody can tell."""
        ...

    @property
    def world(self) -> JsonValue:
        """All that can make a difference to what follows, in a canonical form."""
        ...

    def send(self, command: str) -> Reply:
        """Play one command: printable ASCII, at most 198 characters."""
        ...

    def solution(self) -> Sequence[str] | None:
        """Return commands that win from here, or None when no way is known."""
        ...

    def policy_length(self) -> int | None:
        """Return how many commands TextWorld's policy for this state has, or None without one.

        Only games that were generated with their quests have one.
        """
        ...

    def save(self) -> Mapping[str, JsonValue]:
        """Return the run as JSON values."""
        ...


def begins_with(commands: Sequence[str], command: str) -> bool:
    """Return whether a command is the next one; games do not care about case (`use BBQ`)."""
    return bool(commands) and commands[0].casefold() == command.casefold()
