"""What the environment does with answers, and what it shows."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from steppo_env.env import AnyEnv
from steppo_env.errors import EpisodeNotStarted
from steppo_env.mdp import Outcome
from steppo_env.registry import make
from steppo_env.testing import expert_action, play, random_action

ENV_ID = "steppo/TextWorld-v0"


def started(index: int = 0, seed: int = 0, **options: object) -> AnyEnv:
    env = make(ENV_ID, **options)
    env.start(env.tasks.at("dev", index), seed)
    return env


def shown(env: AnyEnv) -> str:
    return env.observation.messages[-1].content


def act(command: str) -> str:
    return f"<act>{command}</act>"


def there_and_back(env: AnyEnv) -> tuple[str, str]:
    """Return a way out of the room and the way back."""
    opposite = {"north": "south", "south": "north", "east": "west", "west": "east"}
    way = next(name for name in env.observation.admissible_actions or () if name.startswith("go "))
    return way, f"go {opposite[way.removeprefix('go ')]}"


def test_the_first_state_has_the_objective_and_the_room_but_no_banner() -> None:
    env = started()
    text = env.observation.text
    assert "-= " in text
    assert all(trace not in text + shown(env) for trace in ("$$", "<score>", "[", "RESTART"))
    assert shown(env).startswith("# Objective\n")
    assert "Turns left: 30." in shown(env)


def test_the_state_never_shows_what_the_game_prints_for_the_environment() -> None:
    for family in ("treasure_hunter", "simple", "cooking"):
        env = started(family=family)
        rng = np.random.default_rng(1)
        while not env.has_ended:
            outcome = env.advance(random_action(env, rng))
            assert all(
                trace not in outcome.observation.text
                for trace in ("<score>", "succeeded]", "RESTART", "   ***", "\n\n\n")
            ), outcome.observation.text
            assert not outcome.observation.text.endswith(("/1", "/2", "/3", ">"))


def test_a_refused_command_is_answered_by_the_game_and_counted() -> None:
    env = started()
    outcome = env.advance(act("dance with the stars"))
    assert outcome.rejected == ()
    assert outcome.observation.text == "That's not a verb I recognise."
    assert outcome.info["is_refused"] is True
    outcome = env.advance(act("look"))
    assert outcome.info["is_refused"] is False
    assert outcome.info["num_refused"] == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I would go north.", "this had 0"),
        ("<act>look</act><act>look</act>", "this had 2"),
        (act("go north. go south"), "one command only"),
        (act("go north then look"), "one command only"),
        (act("undo"), "'undo' steers the program"),
        (act("RESTART"), "'restart' steers the program"),
        (act("tw-extra-infos inventory"), "'tw-extra-infos' steers the program"),
        (act("print_state"), "'print_state' steers the program"),
        (act("take " + "x" * 200), "at most 100 characters"),
        (act("take caf\u00e9"), "plain English letters"),
        (act("look") + "<answer>done</answer>", "an <answer> does nothing here"),
        (act("look") + '<tool_call>{"name": "look", "arguments": {}}</tool_call>', "no tools here"),
    ],
)
def test_what_cannot_be_played_is_rejected_with_a_reason(text: str, words: str) -> None:
    env = started()
    before = env.observation.state_key
    outcome = env.advance(text)
    assert any(words in reason for reason in outcome.rejected), outcome.rejected
    assert all(reason in outcome.observation.text for reason in outcome.rejected)
    assert all(reason in shown(env) for reason in outcome.rejected)
    assert env.observation.state_key == before
    assert not outcome.terminated


def test_a_rejected_answer_costs_a_turn_and_leaves_the_game_as_it_is() -> None:
    env = started()
    room = env.observation.text.split("\n\n", 1)[1]
    outcome = env.advance("nothing")
    assert "Turns left: 29." in shown(env)
    assert room in shown(env)
    assert outcome.info["command"] is None


def test_a_valid_command_beside_a_flaw_is_played() -> None:
    env = started()
    way, _ = there_and_back(env)
    outcome = env.advance(act(way) + "<answer>x</answer>")
    assert outcome.info["command"] == way
    assert "-= " in outcome.observation.text
    assert outcome.rejected


def test_commands_are_read_without_regard_to_case_and_space() -> None:
    env = started()
    way, _ = there_and_back(env)
    assert env.advance(act(f"  {way.upper().replace(' ', '   ')}\n")).info["command"] == way


def test_two_visits_of_a_state_share_its_key() -> None:
    env = started()
    start = env.observation.state_key
    way, back = there_and_back(env)
    env.advance(act(way))
    assert env.observation.state_key != start
    env.advance(act(back))
    assert env.observation.state_key == start
    env.advance(act("inventory"))
    assert env.observation.state_key == start
    env.advance("malformed")
    assert env.observation.state_key == start


def test_an_abbreviation_reaches_the_state_of_the_full_command() -> None:
    env, other = started(), started()
    way, _ = there_and_back(env)
    env.advance(act(way))
    other.advance(act(way.removeprefix("go ")[0]))
    assert env.observation.state_key == other.observation.state_key
    assert env.observation.admissible_actions == other.observation.admissible_actions


def lose(env: AnyEnv) -> Outcome:
    """Play at random until a game is lost; return its last outcome."""
    task_id = env.tasks.at("dev", 0).task_id
    for seed in range(20):
        choose = partial(random_action, rng=np.random.default_rng(seed))
        last = play(env, task_id, 0, choose)[0][-1]
        if last.info["lost"]:
            return last
    pytest.fail("no random game was lost")


def test_losing_terminates_without_reward() -> None:
    env = make(ENV_ID, step_limit=100)
    last = lose(env)
    assert last.terminated
    assert not last.truncated
    assert last.info["success"] is False
    assert last.reward == 0.0
    assert "*** You lost! ***" in last.observation.text
    assert last.observation.admissible_actions == ()
    assert "The game is over." in shown(env)
    assert env.expert() is None


def test_what_follows_the_limit_is_worth_nothing_where_the_state_shows_the_limit() -> None:
    assert "bootstrap_value" not in started(step_limit=2).advance(act("look")).info
    last = started(step_limit=1).advance(act("look"))
    assert last.truncated
    assert last.info["bootstrap_value"] == 0.0
    unseen = started(step_limit=1, rendering="accumulated").advance(act("look"))
    assert unseen.truncated
    assert "bootstrap_value" not in unseen.info


def test_winning_pays_one() -> None:
    env = make(ENV_ID)
    outcomes, _ = play(env, env.tasks.at("dev", 0).task_id, 0, expert_action)
    assert [outcome.reward for outcome in outcomes] == [0.0] * (len(outcomes) - 1) + [1.0]
    assert outcomes[-1].reward_terms == {"win": 1.0}


def test_the_score_pays_each_point_when_it_is_made_and_one_in_all() -> None:
    env = make(ENV_ID, family="cooking", reward="score")
    outcomes, _ = play(env, env.tasks.at("dev", 0).task_id, 0, expert_action)
    rewards = [outcome.reward for outcome in outcomes]
    assert sum(rewards) == pytest.approx(1.0)
    points = float(outcomes[-1].info["max_score"])  # type: ignore[arg-type]
    assert points > 1
    assert {round(reward * points) for reward in rewards} == {0, 1}


@pytest.mark.parametrize("family", ["treasure_hunter", "coin_collector", "simple", "cooking"])
def test_the_expert_wins_from_wherever_a_detour_ends(family: str) -> None:
    env = make(ENV_ID, family=family, step_limit=200)
    num_won = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        env.start(env.tasks.at("dev", 0), 0)
        for _ in range(8):
            if not env.has_ended:
                env.advance(random_action(env, rng))
        if env.has_ended:
            continue
        rewards = []
        while not env.has_ended:
            rewards.append(env.advance(expert_action(env)).reward)
        assert rewards[-1] == 1.0
        num_won += 1
    assert num_won


def test_the_distance_falls_by_one_with_each_expert_step() -> None:
    env = started(family="cooking")
    total = env.distance()
    distances = []
    while not env.has_ended:
        distances.append(env.distance())
        env.advance(expert_action(env))
    assert total == len(distances)
    assert distances == list(range(len(distances), 0, -1))
    assert env.distance() is None


def test_a_look_around_does_not_change_the_distance() -> None:
    env = started()
    before = env.distance()
    env.advance(act("inventory"))
    assert env.distance() == before
    way, back = there_and_back(env)
    env.advance(act(way))
    env.advance(act(back))
    assert env.distance() == before


def test_a_fork_after_a_detour_goes_on_like_its_origin() -> None:
    env = started(family="simple", step_limit=100)
    rng = np.random.default_rng(3)
    for _ in range(10):
        env.advance(random_action(env, rng))
    env.advance("malformed")
    snapshot = env.snapshot()
    assert snapshot is not None
    assert len(snapshot) < 50_000
    fork = make(ENV_ID, family="simple", step_limit=100)
    assert fork.restore(snapshot) == env.observation
    assert fork.distance() == env.distance()
    while not env.has_ended:
        text = expert_action(env)
        assert fork.advance(text) == env.advance(text)
        assert fork.trace_key == env.trace_key


def test_without_admissible_commands_none_are_shown() -> None:
    env = started(show_admissible=False)
    assert env.observation.admissible_actions is None
    assert "# Commands" not in shown(env)


def test_the_history_is_bounded_and_the_room_stays_in_sight() -> None:
    env = started(history=1)
    way, _ = there_and_back(env)
    env.advance(act(way))
    room = env.observation.text
    env.advance(act("inventory"))
    env.advance(act("dance"))
    assert "# Earlier turns (3 before these)" not in shown(env)
    assert "# Earlier turns (2 before these)\n> inventory" in shown(env)
    assert room in shown(env)
    assert shown(env).count(room) == 1


def test_a_small_budget_drops_the_oldest_turns_first() -> None:
    env = started(state_chars=1_000)
    for _ in range(12):
        env.advance(act("look"))
    assert "left out)" in shown(env)
    assert "# Objective" in shown(env)
    assert "# Commands that do something here" in shown(env)


def test_accumulated_replies_carry_the_commands() -> None:
    env = started(rendering="accumulated")
    env.advance(act("inventory"))
    assert "You are carrying" in shown(env)
    assert "# Commands that do something here" in shown(env)


def test_a_closed_environment_can_be_started_again() -> None:
    env = started()
    env.close()
    with pytest.raises(EpisodeNotStarted, match="closed"):
        env.expert()
    env.start(env.tasks.at("dev", 0), 0)
    env.advance(act("look"))


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    env = make(ENV_ID)
    play(env, env.tasks.at("dev", 0).task_id, 0, expert_action)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs /proc")
def test_new_episodes_do_not_add_memory() -> None:
    def resident_mb() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096 / 1e6

    env = started()
    for _ in range(20):
        env.start(env.tasks.at("dev", 0), 0)
    before = resident_mb()
    for _ in range(60):
        env.start(env.tasks.at("dev", 0), 0)
        env.advance(act("look"))
    # One interpreter is about 2 MB: sixty that stay would be 120.
    assert resident_mb() - before < 10
