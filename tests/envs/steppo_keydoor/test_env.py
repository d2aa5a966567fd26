"""KeyDoor: the contract, the rules, and a proof by search that its expert is optimal."""

import itertools
import re
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

import steppo_keydoor
from steppo_env.errors import InvalidOptions, UnknownTask
from steppo_env.mdp import Outcome
from steppo_env.testing import EnvContract, expert_action, play
from steppo_keydoor import KeyDoor, KeyDoorOptions, KeyDoorTask
from steppo_keydoor.tasks import Cell

README = (Path(str(steppo_keydoor.__file__)).parent / "README.md").read_text(encoding="utf-8")


class TestContract(EnvContract):
    env_id = "steppo/KeyDoor-v0"
    num_tasks = 20


class TestContractOnTheSmallestGrid(EnvContract):
    env_id = "steppo/KeyDoor-v0"
    options: ClassVar[Mapping[str, object]] = {"size": 2, "step_limit": 6}
    split = "train"


def started(agent: Cell, key: Cell, door: Cell, **options: Any) -> KeyDoor:
    env = KeyDoor(**options)
    env.start(KeyDoorTask("own/0", "dev", {}, agent, key, door), 0)
    return env


def go(env: KeyDoor, *directions: str) -> Outcome:
    outcomes = [env.advance(f"<think> key is x </think> <act> go {to} </act>") for to in directions]
    return outcomes[-1]


def shortest(task: KeyDoorTask, size: int) -> int:
    """Breadth-first search over (row, column, has the key), by the rules as the README has them."""
    start: tuple[int, int, bool] = (*task.agent, False)
    distance: dict[tuple[int, int, bool], int] = {start: 0}
    queue: deque[tuple[int, int, bool]] = deque([start])
    while queue:
        row, column, has_key = state = queue.popleft()
        if has_key and (row, column) == task.door:
            return distance[state]
        for rows, columns in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            cell = (row + rows, column + columns)
            if not (0 <= cell[0] < size and 0 <= cell[1] < size):
                continue
            successor = (*cell, has_key or cell == task.key)
            if successor not in distance:
                distance[successor] = distance[state] + 1
                queue.append(successor)
    raise AssertionError("the door cannot be reached")


@pytest.mark.parametrize("size", [2, 3])
def test_the_expert_is_optimal_from_every_start(size: int) -> None:
    cells = [(row, column) for row in range(size) for column in range(size)]
    env = KeyDoor(size=size)
    for agent, key, door in itertools.permutations(cells, 3):
        task = KeyDoorTask("own/0", "dev", {}, agent, key, door)
        env.start(task, 0)
        fewest = shortest(task, size)
        assert env.distance() == fewest
        outcomes = [env.advance(expert_action(env)) for _ in range(fewest)]
        assert [outcome.reward for outcome in outcomes] == [0.0] * (fewest - 1) + [1.0]
        assert outcomes[-1].terminated


def test_the_label_is_the_fewest_steps_and_the_limit_leaves_room() -> None:
    env = KeyDoor()
    for index in range(200):
        task = env.tasks.at("train", index)
        assert task.labels == {"distance": shortest(task, 6)}
        outcomes, _ = play(env, task.task_id, 0, expert_action)
        assert len(outcomes) == shortest(task, 6) <= 20


def test_the_state_is_told_in_few_words() -> None:
    env = started((2, 3), (0, 1), (5, 5))
    assert env.observation.text == (
        "you are at r2 c3 . key at r0 c1 . door at r5 c5 . you hold nothing . turns left 24 . move :"
    )
    assert len(env.observation.text.split()) == 26
    go(env, "north", "north", "west", "west")
    assert env.observation.text == (
        "you are at r0 c1 . key in hand . door at r5 c5 . you hold the key . turns left 20 . move :"
    )
    system, user = env.observation.messages
    assert (system.role, user.role) == ("system", "user")
    assert user.content == env.observation.text
    assert env.observation.admissible_actions == ("go north", "go south", "go west", "go east")


def test_the_expert_speaks_as_the_prompt_asks() -> None:
    env = started((1, 0), (0, 0), (1, 0))
    assert expert_action(env) == "<think> key is north </think> <act> go north </act>"
    assert expert_action(env) in env.observation.messages[0].content
    go(env, "north")
    assert expert_action(env) == "<think> door is south </think> <act> go south </act>"
    go(env, "south")
    assert env.expert() is None


@pytest.mark.parametrize(
    ("agent", "direction", "there"),
    [
        ((1, 1), "north", (0, 1)),
        ((1, 1), "south", (2, 1)),
        ((1, 1), "west", (1, 0)),
        ((1, 1), "east", (1, 2)),
        ((0, 1), "north", (0, 1)),
        ((2, 1), "south", (2, 1)),
        ((1, 0), "west", (1, 0)),
        ((1, 2), "east", (1, 2)),
    ],
)
def test_a_move_is_one_cell_and_walls_stop_it(agent: Cell, direction: str, there: Cell) -> None:
    env = started(agent, (0, 0), (2, 2), size=3)
    outcome = go(env, direction)
    assert outcome.observation.text.startswith(f"you are at r{there[0]} c{there[1]} .")
    assert outcome.rejected == ()  # bumping into a wall is a move, if a poor one
    assert "turns left 23" in outcome.observation.text


def test_the_key_is_picked_up_on_entering_its_cell_and_kept() -> None:
    env = started((0, 0), (0, 1), (2, 2), size=3)
    assert "you hold the key" in go(env, "east").observation.text
    assert "key in hand" in go(env, "west").observation.text


def test_the_door_without_the_key_is_just_a_cell() -> None:
    env = started((0, 0), (0, 2), (0, 1), size=3)
    outcome = go(env, "east")
    assert (outcome.reward, outcome.terminated) == (0.0, False)
    assert "you hold nothing" in outcome.observation.text
    outcome = go(env, "east", "west")
    assert (outcome.reward, outcome.terminated, outcome.truncated) == (1.0, True, False)
    assert outcome.info["success"] is True
    assert "bootstrap_value" not in outcome.info


def test_running_out_of_turns_is_a_truncation_that_is_known_to_be_worth_nothing() -> None:
    env = started((0, 0), (2, 2), (0, 2), size=3, step_limit=2)
    first, last = go(env, "north"), go(env, "north")
    assert (first.truncated, "bootstrap_value" in first.info) == (False, False)
    assert (last.terminated, last.truncated) == (False, True)
    assert last.info["bootstrap_value"] == 0.0
    assert last.info["success"] is False
    assert last.reward == 0.0
    assert "turns left 0" in last.observation.text


def test_winning_with_the_last_turn_is_a_termination() -> None:
    env = started((0, 0), (0, 1), (0, 2), size=3, step_limit=2)
    outcome = go(env, "east", "east")
    assert (outcome.reward, outcome.terminated, outcome.truncated) == (1.0, True, False)
    assert "bootstrap_value" not in outcome.info


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("go north", "write one command, such as <act> go north </act>; this had 0"),
        ("<act>go north</act><act>go south</act>", "this had 2"),
        ("<act>go up</act>", "commands are go north, go south, go west, go east, not 'go up'"),
        ("<act>" + "x" * 10_000 + "</act>", "not 'xxx"),
        ("<act></act>", "the <act> is empty; write <act>your command</act>"),
    ],
)
def test_what_is_no_command_costs_a_turn_and_is_explained(text: str, reason: str) -> None:
    env = started((1, 1), (0, 0), (2, 2), size=3, malformed_penalty=0.1)
    outcome = env.advance(text)
    feedback, state = outcome.observation.text.split("\n")
    assert reason in feedback
    assert len(feedback) < 300
    assert state.startswith("you are at r1 c1 .")
    assert "turns left 23" in state
    assert outcome.reward == -0.1
    # What was wrong is said once.
    assert "\n" not in go(env, "north").observation.text


def test_a_command_may_also_stand_in_action_tags_and_with_any_space() -> None:
    env = started((1, 1), (0, 0), (2, 2), size=3)
    assert env.advance("<action>\n go   north</action>").rejected == ()
    assert env.observation.text.startswith("you are at r0 c1 .")


def test_a_state_visited_again_has_its_key_again() -> None:
    env = started((1, 1), (0, 0), (2, 2), size=3)
    first = env.observation
    again = go(env, "north", "south").observation
    assert again.state_key == first.state_key
    assert again.text != first.text  # the turns left are in the text, not in the key
    keys = {go(env, "north").observation.state_key, go(env, "west").observation.state_key}
    assert len(keys | {first.state_key}) == 3
    back = go(env, "east", "south").observation
    assert back.state_key not in keys | {first.state_key}  # the same cell, with the key


def test_splits_hold_different_tasks() -> None:
    tasks = KeyDoor().tasks
    assert dict(tasks.splits) == {"train": 100_000, "dev": 512, "test": 512}
    dev = [tasks.at("dev", index) for index in range(512)]
    places = {(task.agent, task.key, task.door) for task in dev}
    assert len(places) > 470  # of about 4,284 there are; chance alone makes a few meet
    assert all(len({task.agent, task.key, task.door}) == 3 for task in dev)
    assert tasks.at("test", 0) != tasks.at("dev", 0)
    with pytest.raises(UnknownTask):
        tasks.get("dev/512")


@pytest.mark.parametrize("size", [2, 3, 6])
def test_no_layout_is_in_two_splits(size: int) -> None:
    tasks = KeyDoor(size=size).tasks
    layouts = {
        split: {
            (task.agent, task.key, task.door)
            for task in (tasks.at(split, index) for index in range(500))
        }
        for split in ("train", "dev", "test")
    }
    assert not layouts["train"] & layouts["dev"]
    assert not layouts["train"] & layouts["test"]
    assert not layouts["dev"] & layouts["test"]


def test_tasks_depend_on_the_size_and_so_does_their_version() -> None:
    small, large = KeyDoor(size=4).tasks, KeyDoor(size=20).tasks
    assert small.version != large.version
    for index in range(100):
        assert max(*small.at("dev", index).agent, *small.at("dev", index).door) < 4
    assert max(max(large.at("dev", index).agent) for index in range(100)) > 15


def test_published_tasks_do_not_move() -> None:
    """Results are compared by task id: a change here is a new version of the environment."""
    task = KeyDoor().tasks.get("dev/0")
    assert (task.agent, task.key, task.door) == ((1, 4), (0, 2), (2, 1))


@pytest.mark.parametrize("options", [{"size": 1}, {"size": 21}, {"step_limit": 0}, {"walls": 1}])
def test_options_are_bounded(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions):
        KeyDoor(**options)


def test_the_readmes_python_blocks_run_in_order() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)  # noqa: S102 - our own README


def test_the_readmes_example_of_a_state_is_real() -> None:
    env = KeyDoor()
    env.start("dev/0", 0)
    for message in env.observation.messages:
        assert message.content in README
    assert expert_action(env) in README


def test_the_readmes_table_has_every_option_with_its_default() -> None:
    for name, field in KeyDoorOptions.model_fields.items():
        default = getattr(field.default, "value", field.default)
        assert f"| `{name}` | `{default}` |" in README, name
