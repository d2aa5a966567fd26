"""Levels, options and task ids."""

import pytest

from steppo_env.errors import InvalidOptions, UnknownTask
from steppo_env.registry import make
from steppo_env.testing import expert_action, play
from steppo_textworld import Family, GameSpec, Instructions
from steppo_textworld.levels import challenge_settings, problem_with, quest_length

ENV_ID = "steppo/TextWorld-v0"


@pytest.mark.parametrize(
    ("family", "level", "length"),
    [
        (Family.COIN_COLLECTOR, 1, 1),
        (Family.COIN_COLLECTOR, 100, 100),
        (Family.COIN_COLLECTOR, 101, 1),
        (Family.COIN_COLLECTOR, 233, 33),
        (Family.TREASURE_HUNTER, 1, 1),
        (Family.TREASURE_HUNTER, 10, 5),
        (Family.TREASURE_HUNTER, 11, 2),
        (Family.TREASURE_HUNTER, 20, 10),
        (Family.TREASURE_HUNTER, 21, 3),
        (Family.TREASURE_HUNTER, 30, 20),
        (Family.CUSTOM, 1, 1),
        (Family.CUSTOM, 10, 10),
        (Family.CUSTOM, 11, 2),
        (Family.CUSTOM, 20, 10),
        (Family.CUSTOM, 21, 3),
        (Family.CUSTOM, 30, 15),
        (Family.CUSTOM, 31, 4),
        (Family.CUSTOM, 33, 6),
    ],
)
def test_quest_lengths_are_those_of_textworld(family: Family, level: int, length: int) -> None:
    assert quest_length(family, level) == length


@pytest.mark.parametrize("level", range(1, 31))
def test_treasure_hunter_lengths_equal_the_challenge_at_every_level(level: int) -> None:
    """TextWorld's own table: ten levels each of 1..5, 2..10 and 3..20, evenly spaced, rounded."""
    easy = [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    medium = [2, 3, 4, 5, 6, 6, 7, 8, 9, 10]
    hard = [3, 5, 7, 9, 11, 12, 14, 16, 18, 20]
    assert quest_length(Family.TREASURE_HUNTER, level) == (easy + medium + hard)[level - 1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"family": "chess"}, "coin_collector"),
        ({"family": "cooking", "level": 11}, "levels 1 to 10"),
        ({"family": "simple", "level": 4}, "levels 1 to 3"),
        ({"family": "treasure_hunter", "level": 31}, "levels 1 to 30"),
        ({"family": "coin_collector", "level": 151}, "102 rooms"),
        ({"family": "coin_collector", "level": 301}, "300"),
        ({"family": "custom", "level": 34}, "levels 1 to 33"),
        ({"level": -1}, "greater than or equal to 0"),
        ({"reward": "money"}, "win"),
        ({"history": -1}, "history"),
    ],
)
def test_wrong_options_are_refused_with_their_bounds(
    options: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidOptions, match=words):
        make(ENV_ID, **options)


def test_the_largest_game_of_each_kind_is_allowed() -> None:
    allowed = [100, 150, 233]
    assert [problem_with(Family.COIN_COLLECTOR, level) for level in allowed] == [None] * 3
    assert problem_with(Family.COIN_COLLECTOR, 234) is not None


def test_the_step_limit_follows_the_level_unless_it_is_given() -> None:
    assert make(ENV_ID).options.step_limit == 30
    assert make(ENV_ID, family="coin_collector", level=40).options.step_limit == 120
    assert make(ENV_ID, family="coin_collector", level=40, step_limit=7).options.step_limit == 7


def test_task_ids_name_family_level_and_instructions() -> None:
    env = make(ENV_ID, family="coin_collector", level=5, instructions="walkthrough")
    assert env.tasks.at("dev", 7).task_id == "coin_collector-5-walkthrough/dev/7"
    with pytest.raises(UnknownTask, match="coin_collector-5-walkthrough/split/index"):
        env.tasks.get("coin_collector-5/dev/7")


def test_cooking_and_simple_test_with_other_foods_than_they_train_with() -> None:
    def settings(family: Family, split: str) -> dict[str, object]:
        return challenge_settings(GameSpec(family, 1, Instructions.GOAL, split, 0))

    assert [settings(Family.COOKING, split)["split"] for split in ("train", "dev", "test")] == [
        "train",
        "valid",
        "test",
    ]
    assert settings(Family.SIMPLE, "test")["test"] is True
    assert settings(Family.SIMPLE, "train")["test"] is False


def test_custom_levels_grow_the_world_then_the_number_of_quests() -> None:
    def settings(level: int) -> tuple[object, ...]:
        return tuple(
            challenge_settings(
                GameSpec(Family.CUSTOM, level, Instructions.GOAL, "train", 0)
            ).values()
        )

    # Rooms, objects, quests, commands of each quest, branches of each quest.
    assert settings(1) == (2, 4, 1, 1, 1)
    assert settings(10) == (11, 22, 1, 10, 1)
    assert settings(11) == (3, 6, 2, 1, 1)
    assert settings(20) == (12, 24, 2, 5, 1)
    assert settings(30) == (13, 26, 3, 5, 1)
    assert settings(32) == (6, 12, 1, 5, 2)


@pytest.mark.parametrize(("level", "num_quests"), [(5, 1), (13, 2)])
def test_custom_games_tell_every_quest_and_pay_for_each(level: int, num_quests: int) -> None:
    env = make(ENV_ID, family="custom", level=level, reward="score")
    task_id = f"custom-{level}/dev/0"
    outcomes, _ = play(env, task_id, 0, expert_action)
    assert outcomes[-1].info["success"] is True
    assert outcomes[-1].info["max_score"] == num_quests
    assert sum(outcome.reward for outcome in outcomes) == pytest.approx(1.0)
    env.start(task_id, 0)
    assert env.observation.text.count("\nAND\n") == num_quests - 1
