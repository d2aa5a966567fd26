"""A snapshot comes back as it was, into an environment that played on as into a new one."""

import numpy as np
import pytest

from steppo_env.env import AnyEnv
from steppo_env.registry import make
from steppo_env.testing import expert_action, random_action

ENV_ID = "steppo/TextWorld-v0"
FAMILIES = ("treasure_hunter", "custom")


def started(family: str) -> AnyEnv:
    env = make(ENV_ID, family=family, step_limit=200)
    env.start(env.tasks.at("dev", 0), 0)
    return env


def win(env: AnyEnv) -> None:
    while not env.has_ended:
        env.advance(expert_action(env))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_episode_that_was_won_goes_back_to_a_snapshot_and_on_like_a_new_one(family: str) -> None:
    env = started(family)
    env.advance("<act>look</act>")
    snapshot, origin = env.snapshot(), env.observation
    assert snapshot is not None
    win(env)
    end, last = env.snapshot(), env.observation
    assert end is not None
    fresh = make(ENV_ID, family=family, step_limit=200)
    assert fresh.restore(snapshot) == env.restore(snapshot) == origin
    rng = np.random.default_rng(2)
    for _ in range(12):
        if env.has_ended:
            break
        action = random_action(env, rng)
        assert env.advance(action) == fresh.advance(action)
        assert env.trace_key == fresh.trace_key
        assert env.distance() == fresh.distance()
    assert env.snapshot() == fresh.snapshot()
    assert env.restore(end) == last
    assert env.has_ended
    assert env.restore(snapshot) == origin
    assert env.snapshot() == snapshot


def test_a_snapshot_of_another_game_does_not_use_the_interpreter_of_this_one() -> None:
    env = started("treasure_hunter")
    snapshot, origin = env.snapshot(), env.observation
    assert snapshot is not None
    env.start(env.tasks.at("dev", 1), 0)
    env.advance("<act>look</act>")
    assert env.restore(snapshot) == origin
    win(env)


def test_forks_of_one_state_do_not_share_what_follows() -> None:
    env = started("treasure_hunter")
    snapshot, origin = env.snapshot(), env.observation
    assert snapshot is not None
    other = make(ENV_ID, family="treasure_hunter", step_limit=200)
    other.restore(snapshot)
    way = next(name for name in origin.admissible_actions or () if name.startswith("go "))
    other.advance(f"<act>{way}</act>")
    assert other.observation.state_key != origin.state_key
    assert env.observation.admissible_actions == origin.admissible_actions
    assert env.restore(snapshot) == origin
    win(env)
    win(other)


def test_a_snapshot_keeps_what_differs_from_the_story_file() -> None:
    env = started("treasure_hunter")
    for _ in range(5):
        env.advance("<act>look</act>")
    snapshot = env.snapshot()
    assert snapshot is not None
    assert len(snapshot) < 10_000
