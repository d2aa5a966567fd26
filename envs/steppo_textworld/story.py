"""A game as loaded, and one run through it: the Z-machine tells, TextWorld's logic keeps track."""

import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from steppo_textworld.engine import inform7, interpreter, logic, world

__all__ = ["Game", "Reply", "Story"]

_TRACE = re.compile(r"\[[^\]]+\]\n?")
"""What the game prints about its own actions once they are traced, such as `[looking]`."""
_SUCCEEDED = re.compile(r"\[([^\]()]+) - succeeded\]")
"""A whole action that took place. Those with a number in parentheses are parts of another."""
_COUNTERS = re.compile(r"<score>\s*(-?\d+)\s*</score><moves>\s*\d+\s*</moves>\n?")
_CENTRED = re.compile(r"^ +(\*\*\* .* \*\*\*)$", re.MULTILINE)
_STATUS_LINE = re.compile(r"\n> +-= .* =--?\d+/-?\d+\s*$")
"""The prompt and the terminal's status line: room, score and turns."""
_QUESTION = "\n\nWould you like to RESTART"
_ROOM = re.compile(r"^-= .* =-$", re.MULTILINE)
_WON = "*** The End ***"
_LOST = "*** You lost! ***"


class Game:
    """A game as loaded: its story file, its world model and its solution. Shared by episodes.

    Attributes:
        story_file: The compiled game, a version 8 Z-machine story.
        model: TextWorld's Game, the logic of the world.
        names: TextWorld's Inform7Game, which puts actions into words.
        objective: What the player is told to do.
        walkthrough: Commands that win the game from its start.
        max_score: The highest score.
    """

    def __init__(self, folder: Path) -> None:
        self.story_file = folder / "game.z8"
        self.model: Any = world.Game.load(str(folder / "game.json"))
        self.names: Any = inform7.Inform7Game(self.model)
        self.objective: str = self.model.objective.strip()
        self.walkthrough: tuple[str, ...] = tuple(self.model.metadata["walkthrough"])
        self.max_score = int(self.model.max_score)


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


class Story:
    """One run through a game.

    The state of the world is known twice: the Z-machine has it, and TextWorld's logic follows the
    actions that the Z-machine reports, so it stays right for every spelling of a command.

    Attributes:
        intro: The first room, as the game describes it; known to the run that saw it only.
        score: Points so far.
    """

    def __init__(self, game: Game) -> None:
        self.game = game
        self.score = 0
        self._events: list[str] = []
        self._machine = interpreter(game.story_file)
        self._progression: Any = world.GameProgression(game.model, track_quests=False)
        self._facts = self._read_facts()
        self._admissible: tuple[str, ...] | None = None
        self._is_tracking_quests = False
        self._num_followed = 0
        self._waypoint = self._facts
        self.intro = ""

    @classmethod
    def begin(cls, game: Game) -> "Story":
        """Return a new run, at the opening of the game."""
        story = cls(game)
        banner, _ = story._machine.reset()
        story.intro = _room(_clean(banner))
        # The only report of which action a command turned out to be.
        story._machine.step("tw-trace-actions")
        story._machine.step("tw-extra-infos score")
        return story

    def send(self, command: str) -> Reply:
        """Play one command: printable ASCII, at most 198 characters."""
        told, _, _, _ = self._machine.step(command)
        counters = _COUNTERS.findall(told)
        if counters:
            self.score = int(counters[-1])
        followed = self._is_on_walkthrough and command == self._next_on_walkthrough
        events = _SUCCEEDED.findall(told)
        changed = [self._follow(event) for event in events]
        if any(changed):
            self._facts = self._read_facts()
            self._admissible = None
        if followed and events:
            self._num_followed += 1
            self._waypoint = self._facts
        return Reply(_clean(told), bool(events), won=_WON in told, lost=_LOST in told)

    @property
    def admissible(self) -> tuple[str, ...]:
        """The commands that would do something now, sorted."""
        if self._admissible is None:
            actions = self._progression.valid_actions
            commands = self.game.names.gen_commands_from_actions(actions)
            self._admissible = tuple(sorted(set(commands)))
        return self._admissible

    @property
    def facts(self) -> tuple[str, ...]:
        """All that is true in the world, sorted."""
        return self._facts

    def solution(self) -> tuple[str, ...] | None:
        """Return commands that win from here, or None when TextWorld knows no way.

        The walkthrough as long as the world is as it left it; after a detour, TextWorld's policy.
        """
        if self._is_on_walkthrough:
            return self.game.walkthrough[self._num_followed :]
        self._track_quests()
        policy = self._progression.winning_policy
        if policy is None:
            return None
        commands = tuple(self.game.names.gen_commands_from_actions(policy))
        return commands if commands and commands[0] in self.admissible else None

    def save(self) -> dict[str, JsonValue]:
        """Return the run as JSON values."""
        ram, stack, *registers, random, narrative = self._machine.get_state()
        facts = sorted(self._progression.state.facts, key=str)
        return {
            "ram": _pack(ram.tobytes()),
            "stack": _pack(stack.tobytes()),
            "registers": [int(register) for register in registers],
            "random": [int(number) for number in random],
            "narrative": _pack(narrative),
            "facts": [fact.serialize() for fact in facts],
            "events": [*self._events],
            "score": self.score,
            "num_followed": self._num_followed,
            "waypoint": [*self._waypoint],
        }

    @classmethod
    def load(cls, game: Game, saved: Mapping[str, Any]) -> "Story":
        """Return the run that `save` wrote."""
        story = cls(game)
        ram, stack = (
            np.frombuffer(_unpack(saved[name]), dtype=np.uint8).copy() for name in ("ram", "stack")
        )
        narrative = _unpack(saved["narrative"])
        state = (ram, stack, *saved["registers"], tuple(saved["random"]), narrative)
        story._machine.set_state(state)
        facts = [logic.Proposition.deserialize(fact) for fact in saved["facts"]]
        progression = world.GameProgression(game.model, track_quests=False)
        progression.state = logic.State(game.model.kb.logic, facts)
        progression._valid_actions = _valid_actions(game, progression.state)
        story._progression = progression
        story._facts = story._read_facts()
        story._events = list(saved["events"])
        story.score = saved["score"]
        story._num_followed = saved["num_followed"]
        story._waypoint = tuple(saved["waypoint"])
        return story

    @property
    def _is_on_walkthrough(self) -> bool:
        return self._facts == self._waypoint

    @property
    def _next_on_walkthrough(self) -> str:
        return self.game.walkthrough[self._num_followed]

    def _follow(self, event: str) -> bool:
        """Apply an action that the game reports; return whether it changed the world."""
        # Sorted, because the order of valid actions depends on the hash seed.
        actions = sorted(self._progression.valid_actions, key=str)
        action = self.game.names.detect_action(event, actions)
        if action is None or not (action.added or action.removed):
            return False
        self._progression.update(action)
        self._events.append(event)
        return True

    def _track_quests(self) -> None:
        """From now on keep a winning policy; it costs a fifth of a step, so only experts pay."""
        if self._is_tracking_quests:
            return
        events, self._events = self._events, []
        self._progression = world.GameProgression(self.game.model, track_quests=True)
        for event in events:
            self._follow(event)
        self._is_tracking_quests = True

    def _read_facts(self) -> tuple[str, ...]:
        return tuple(sorted(map(str, self._progression.state.facts)))


def _valid_actions(game: Game, state: Any) -> list[Any]:
    kb = game.model.kb
    return list(state.all_applicable_actions(kb.rules.values(), kb.types.constants_mapping))


def _clean(told: str) -> str:
    """Return what the player should read of what the game printed."""
    text = _COUNTERS.sub("", _TRACE.sub("", told)).split(_QUESTION)[0]
    text = _CENTRED.sub(r"\1", _STATUS_LINE.sub("", text))
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _room(opening: str) -> str:
    """Return the opening without banner and objective."""
    heading = _ROOM.search(opening)
    return opening[heading.start() :] if heading else opening


def _pack(data: bytes) -> str:
    return b64encode(zlib.compress(data)).decode()


def _unpack(text: str) -> bytes:
    return zlib.decompress(b64decode(text))
