"""KeyDoor: fetch the key, then walk to the door, before the turns run out."""

import json
from functools import cache

import numpy as np
from pydantic import JsonValue

from steppo_env.env import StepEnv
from steppo_env.mdp import Action, Message, Observation, Outcome
from steppo_env.parsing import parse_text
from steppo_env.tasks import GeneratedTasks
from steppo_keydoor.prompts import SYSTEM, render_state
from steppo_keydoor.tasks import Cell, KeyDoorOptions, KeyDoorTask, blocks, keydoor_tasks

__all__ = ["KeyDoor"]

MOVES = {"north": (-1, 0), "south": (1, 0), "west": (0, -1), "east": (0, 1)}
COMMANDS = tuple(f"go {direction}" for direction in MOVES)


@cache
def _tasks(size: int) -> GeneratedTasks[KeyDoorTask]:
    return keydoor_tasks(size)


class KeyDoor(StepEnv[KeyDoorTask, KeyDoorOptions]):
    """A grid of `size` x `size` cells; the reward is 1 at the door with the key, else 0.

    The key is picked up on entering its cell; the door's cell may be entered without the key and
    then does nothing. The state is complete (Markov) and shows the turns left. Running out of them is
    a truncation like any other step limit, but what follows is known to be worth 0: the last step's
    info says so as `bootstrap_value`, and a learner need not ask its critic.
    """

    env_id = "steppo/KeyDoor-v0"
    options_type = KeyDoorOptions

    @classmethod
    def load_tasks(cls, options: KeyDoorOptions) -> GeneratedTasks[KeyDoorTask]:
        return _tasks(options.size)

    def begin(self, task: KeyDoorTask, rng: np.random.Generator) -> Observation:
        self._agent: Cell = task.agent
        self._has_key = False
        self._turns_left = self.options.step_limit
        self._feedback = ""
        return self._observe(task)

    def act(self, action: Action) -> Outcome:
        self._turns_left -= 1
        rejected = self._rejections(action)
        self._feedback = " ".join((*action.rejections, *rejected))
        if not rejected:
            self._move(action.commands[0].removeprefix("go "), self.task.key)
        won = self._has_key and self._agent == self.task.door
        info: dict[str, JsonValue] = {"success": won}
        if self._turns_left == 0 and not won:
            info["bootstrap_value"] = 0.0
        return Outcome(
            self._observe(self.task),
            reward_terms={"goal": 1.0 if won else 0.0},
            terminated=won,
            rejected=rejected,
            info=info,
        )

    def expert(self) -> Action | None:
        direction = self._direction()
        if direction is None:
            return None
        goal = "door" if self._has_key else "key"
        return parse_text(f"<think> {goal} is {direction} </think> <act> go {direction} </act>")

    def distance(self) -> int | None:
        key, door = self.task.key, self.task.door
        if self._has_key:
            return blocks(self._agent, door)
        return blocks(self._agent, key) + blocks(key, door)

    def save_state(self) -> bytes:
        state = [*self._agent, self._has_key, self._turns_left, self._feedback]
        return json.dumps(state).encode()

    def load_state(self, task: KeyDoorTask, state: bytes) -> Observation:
        row, column, self._has_key, self._turns_left, self._feedback = json.loads(state)
        self._agent = (row, column)
        return self._observe(task)

    def _rejections(self, action: Action) -> tuple[str, ...]:
        if len(action.commands) != 1:
            count = len(action.commands)
            return (f"write one command, such as <act> go north </act>; this had {count}",)
        if action.commands[0] not in COMMANDS:
            return (f"commands are {', '.join(COMMANDS)}, not {action.commands[0][:40]!r}",)
        return ()

    def _move(self, direction: str, key: Cell) -> None:
        rows, columns = MOVES[direction]
        row, column = self._agent[0] + rows, self._agent[1] + columns
        if 0 <= row < self.options.size and 0 <= column < self.options.size:
            self._agent = (row, column)
        self._has_key = self._has_key or self._agent == key

    def _direction(self) -> str | None:
        goal = self.task.door if self._has_key else self.task.key
        rows, columns = goal[0] - self._agent[0], goal[1] - self._agent[1]
        if rows:
            return "north" if rows < 0 else "south"
        if columns:
            return "west" if columns < 0 else "east"
        return None

    def _observe(self, task: KeyDoorTask) -> Observation:
        text = render_state(
            self._agent, None if self._has_key else task.key, task.door, self._turns_left
        )
        shown = f"{self._feedback}\n{text}" if self._feedback else text
        return self.observe(
            (Message("system", SYSTEM), Message("user", shown)),
            text=shown,
            # Without the turns left: they are the step index, which a state key leaves out.
            state=[*self._agent, self._has_key],
            admissible_actions=COMMANDS,
            task=task,
        )
