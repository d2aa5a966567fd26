"""One run through a TextWorld-PDDL game."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from steppo_env.errors import EnvError
from steppo_textworld.pddl.game import PddlGame
from steppo_textworld.pddl.sas import Atom, Operator, State
from steppo_textworld.run import Reply, begins_with

__all__ = ["PddlRun"]

NOTHING = "Nothing happens."
"""What the game says to a command that it does not understand, or that cannot be done now."""


class PddlRun:
    """One run through a game, in the finite-domain state of its planning problem.

    The plan is the walkthrough until a detour; once asked after a detour, the planner's from there.
    """

    max_score = 1

    def __init__(self, game: PddlGame, objective: str | None = None) -> None:
        self._game = game
        self.intro, task = game.opening()
        self.objective = task if objective is None else objective
        self._state = game.task.initial
        self._played: list[str] = []
        # The grammar asks what has been made false; what never was true does not count for it.
        self._denied: dict[Atom, None] = {}
        self._commands: dict[str, Operator] | None = None
        self._plan = game.walkthrough
        self._waypoint = self._where
        self._num_at_waypoint = 0

    @classmethod
    def load(cls, game: PddlGame, saved: Mapping[str, Any]) -> "PddlRun":
        """Return the run that `save` wrote."""
        run = cls(game, saved["objective"])
        commands: list[str] = saved["played"]
        for num_played, command in enumerate(["", *commands]):
            if command and not run._apply(command):
                raise EnvError(f"the saved command {command!r} cannot be played again")
            if num_played == saved["num_at_waypoint"]:
                run._waypoint = run._where
        run._num_at_waypoint = saved["num_at_waypoint"]
        run._plan = tuple(saved["plan"])
        return run

    @property
    def score(self) -> int:
        """1 once the goal holds."""
        return int(self._game.task.is_goal(self._state))

    @property
    def admissible(self) -> tuple[str, ...]:
        """The commands that can be done now, sorted."""
        return tuple(sorted(self._operators))

    @property
    def world(self) -> JsonValue:
        """What holds, and the words in which the goal was given."""
        return {"facts": [*self._game.world(self._state)], "objective": self.objective}

    def send(self, command: str) -> Reply:
        """Play one command."""
        follows = self._is_on_plan and begins_with(self._plan, command)
        operator = self._apply(command)
        if operator is None:
            return Reply(NOTHING, is_done=False)
        if follows:
            self._set_plan(self._plan[1:])
        text = self._game.feedback(operator, self._state, self._denied)
        return Reply(text, won=bool(self.score))

    def solution(self) -> Sequence[str] | None:
        """Return commands that win from here, or None when the planner finds none."""
        if not (self._is_on_plan and self._plan and self._plan[0] in self._operators):
            plan = self._game.planner.plan(self._state)
            if not plan:
                return None
            self._set_plan(self._worded(plan))
        return self._plan

    def policy_length(self) -> int | None:
        """TextWorld has no policy for these games."""
        return None

    def save(self) -> dict[str, JsonValue]:
        """Return the run as JSON values: playing the commands again takes a millisecond each."""
        return {
            "objective": self.objective,
            "played": [*self._played],
            "plan": [*self._plan],
            "num_at_waypoint": self._num_at_waypoint,
        }

    @property
    def _operators(self) -> Mapping[str, Operator]:
        if self._commands is None:
            self._commands = self._game.commands(self._state)
        return self._commands

    @property
    def _where(self) -> tuple[int, ...]:
        """The part of the state that makes a difference to actions and goal."""
        return tuple(self._state[variable] for variable in self._game.task.read_variables)

    @property
    def _is_on_plan(self) -> bool:
        return self._where == self._waypoint

    def _set_plan(self, plan: Sequence[str]) -> None:
        self._plan = tuple(plan)
        self._waypoint = self._where
        self._num_at_waypoint = len(self._played)

    def _apply(self, command: str) -> Operator | None:
        operator = self._operators.get(command)
        if operator is None:
            return None
        before, self._state = self._state, self._game.task.apply(operator, self._state)
        false, true = self._game.denials(before, self._state)
        for atom in sorted(false):
            self._denied[atom] = None
        for atom in true:
            self._denied.pop(atom, None)
        self._commands = None
        self._played.append(command)
        return operator

    def _worded(self, plan: Sequence[Operator]) -> list[str]:
        commands: list[str] = []
        state: State = self._state
        for operator in plan:
            commands.append(self._game.command(operator, state))
            state = self._game.task.apply(operator, state)
        return commands
