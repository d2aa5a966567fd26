"""A game with its world model, and one run: the Z-machine tells, TextWorld's logic keeps track."""

import copy
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from steppo_textworld.engine import inform7, logic, world
from steppo_textworld.machine import Machine
from steppo_textworld.run import Reply, begins_with

__all__ = ["Game", "Story"]

NUM_REMEMBERED = 16
"""States of a game whose valid actions are kept: those from which episodes were forked last."""

# TextWorld parses a game's rules with one global parser, which two threads would break.
_parsing = threading.Lock()


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

    def __init__(
        self, folder: Path, name: str = "game", walkthrough: Sequence[str] | None = None
    ) -> None:
        """Load `name.json`; `name.z8` lies beside it.

        Args:
            walkthrough: Commands that win; None takes those that the model brings.
        """
        self.story_file = folder / f"{name}.z8"
        with _parsing:
            self.model: Any = world.Game.load(str(folder / f"{name}.json"))
            self.names: Any = inform7.Inform7Game(self.model)
        self.objective: str = (self.model.objective or "").strip()
        known = self.model.metadata["walkthrough"] if walkthrough is None else walkthrough
        self.walkthrough: tuple[str, ...] = tuple(known)
        self.max_score = int(self.model.max_score)
        self._opening: Any = world.GameProgression(self.model, track_quests=False)
        self._valid_actions: OrderedDict[tuple[str, ...], list[Any]] = OrderedDict()

    def opening(self) -> Any:
        """Return TextWorld's progression of a run that begins, without quests.

        It is copied because making one instantiates every rule of the game, which takes 3 ms.
        """
        progression = copy.copy(self._opening)
        progression.state = self._opening.state.copy()
        return progression

    def progression(self, state: Any, facts: tuple[str, ...]) -> Any:
        """Return TextWorld's progression at a state whose facts, as text and sorted, are these."""
        progression = copy.copy(self._opening)
        progression.state = state
        actions = self._valid_actions.get(facts)
        if actions is None:
            kb = self.model.kb
            rules, constants = kb.rules.values(), kb.types.constants_mapping
            actions = list(state.all_applicable_actions(rules, constants))
            self.remember(facts, actions)
        progression._valid_actions = actions
        return progression

    def remember(self, facts: tuple[str, ...], valid_actions: list[Any]) -> None:
        """Keep the valid actions of a state, which a fork will ask for."""
        self._valid_actions[facts] = valid_actions
        self._valid_actions.move_to_end(facts)
        while len(self._valid_actions) > NUM_REMEMBERED:
            self._valid_actions.popitem(last=False)


class Story:
    """One run through a game.

    The state of the world is known twice: the Z-machine has it, and TextWorld's logic follows the
    actions that the Z-machine reports, so it stays right for every spelling of a command.

    Attributes:
        intro: The first room, as the game describes it; known to the run that saw it only.
        score: Points so far.
    """

    def __init__(self, game: Game, machine: Machine, progression: Any) -> None:
        self.game = game
        self.score = 0
        self._events: list[str] = []
        self._machine = machine
        self._progression = progression
        self._facts = self._read_facts()
        self._admissible: tuple[str, ...] | None = None
        self._is_tracking_quests = False
        self._num_followed = 0
        self._waypoint = self._facts
        self.intro = ""

    @classmethod
    def begin(cls, game: Game) -> "Story":
        """Return a new run, at the opening of the game."""
        story = cls(game, Machine(game.story_file), game.opening())
        story.intro = story._machine.begin()
        return story

    def send(self, command: str) -> Reply:
        """Play one command: printable ASCII, at most 198 characters."""
        told = self._machine.send(command)
        if told.score is not None:
            self.score = told.score
        followed = self._is_on_walkthrough and begins_with(
            self.game.walkthrough[self._num_followed :], command
        )
        changed = [self._follow(event) for event in told.events]
        if any(changed):
            self._facts = self._read_facts()
            self._admissible = None
        if followed:
            # Also where the game refuses it: the walkthroughs of others open what is open.
            self._num_followed += 1
            self._waypoint = self._facts
        return told.reply

    @property
    def objective(self) -> str:
        """What the player is told to do."""
        return self.game.objective

    @property
    def max_score(self) -> int:
        """The highest score."""
        return self.game.max_score

    @property
    def world(self) -> JsonValue:
        """All that is true."""
        return [*self._facts]

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

    def policy_length(self) -> int | None:
        """Return how many actions TextWorld's policy for this state has, or None without one."""
        self._track_quests()
        policy = self._progression.winning_policy
        return None if policy is None else len(policy)

    def save(self) -> dict[str, JsonValue]:
        """Return the run as JSON values."""
        facts = sorted(self._progression.state.facts, key=str)
        self.game.remember(self._facts, self._progression.valid_actions)
        return {
            "machine": self._machine.save(),
            "facts": [fact.serialize() for fact in facts],
            "events": [*self._events],
            "score": self.score,
            "num_followed": self._num_followed,
            "waypoint": [*self._waypoint],
        }

    @classmethod
    def load(cls, game: Game, saved: Mapping[str, Any], spare: "Story | None" = None) -> "Story":
        """Return the run that `save` wrote.

        Args:
            spare: A run that is not needed any more: its interpreter is used again, where it is one
                of the same game, because starting another takes 5 ms.
        """
        is_fitting = spare is not None and spare.game is game
        machine = spare._machine if spare and is_fitting else Machine(game.story_file)
        machine.load(saved["machine"])
        facts = [logic.Proposition.deserialize(fact) for fact in saved["facts"]]
        state = logic.State(game.model.kb.logic, facts)
        names = tuple(sorted(map(str, facts)))
        story = cls(game, machine, game.progression(state, names))
        story._events = list(saved["events"])
        story.score = saved["score"]
        story._num_followed = saved["num_followed"]
        story._waypoint = tuple(saved["waypoint"])
        return story

    @property
    def _is_on_walkthrough(self) -> bool:
        return self._facts == self._waypoint

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
