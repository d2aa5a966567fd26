"""The published packs, where they lie beside the repository."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from steppo_env.env import AnyEnv
from steppo_env.registry import make
from steppo_env.testing import EnvContract, expert_action

SHARED = next(
    (
        folder
        for parent in Path(__file__).resolve().parents
        if (folder := parent / "shared/data/textworld").is_dir()
    ),
    None,
)

pytestmark = pytest.mark.skipif(
    SHARED is None, reason="the data packs are not beside the repository"
)


def make_env(name: str) -> AnyEnv:
    assert SHARED is not None
    return make("steppo/TextWorld-v0", data=SHARED / name)


def play_expert(env: AnyEnv, split: str, index: int) -> None:
    task = env.tasks.at(split, index)
    env.start(task, 0)
    left = env.distance()
    assert left is not None
    while not env.has_ended:
        assert env.distance() == left, task.task_id
        won = env.advance(expert_action(env)).info["success"]
        left -= 1
        assert won is env.has_terminated, task.task_id
    assert env.has_terminated, task.task_id
    assert left == 0


def test_every_tenth_compiled_game_is_won_by_its_walkthrough() -> None:
    env = make_env(".")
    assert dict(env.tasks.splits) == {"unsplit": 38, "test": 15, "train": 15, "valid": 15}
    for split, count in env.tasks.splits.items():
        for index in range(0, count, 10):
            play_expert(env, split, index)


needs_translator = pytest.mark.skipif(
    importlib.util.find_spec("fast_downward") is None, reason="needs the extra alfworld"
)


@pytest.mark.timeout(180)
class TestCompiledGames(EnvContract):
    env_id = "steppo/TextWorld-v0"
    options: ClassVar[Mapping[str, object]] = {"data": str(SHARED)}
    split = "test"
    num_tasks = 1


@needs_translator
@pytest.mark.timeout(180)
class TestALFWorld(EnvContract):
    env_id = "steppo/TextWorld-v0"
    options: ClassVar[Mapping[str, object]] = {"data": f"{SHARED}/alfworld"}
    split = "valid_unseen"
    num_tasks = 1


@needs_translator
def test_a_handful_of_alfworld_games_is_won_by_its_walkthrough() -> None:
    env = make_env("alfworld")
    assert dict(env.tasks.splits) == {
        "train": 3553,
        "valid_seen": 100,
        "valid_train": 200,
        "valid_unseen": 101,
    }
    for index in (0, 40, 80):
        play_expert(env, "valid_unseen", index)
