"""The published suite passes what keeps the contract and fails whatever breaks it."""

import ast
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from steppo_env import make, register_with_gymnasium
from steppo_env.env import AnyEnv
from steppo_env.testing import MALFORMED, EnvContract, expert_action, play, random_action

STUBS = ast.parse((Path(__file__).parent / "stub_envs.py").read_text(encoding="utf-8"))
ENTRY_POINTS = {
    f"stub/{node.name}-v0": f"stub_envs:{node.name}"
    for node in STUBS.body
    if isinstance(node, ast.ClassDef) and f"stub/{node.name}-v0" in ast.unparse(node)
}
BROKEN = {
    "RandomStart": "test_gymnasium_check_env_passes",
    "OwnStep": "test_the_book_keeping_is_step_env_s_own",
    "MislabelledTasks": "test_task_ids_are_stable_unique_and_found",
    "ShiftingTasks": "test_task_ids_are_stable_unique_and_found",
    "LostExpert": "test_expert_solves_the_task",
    "WithoutExpert": "test_expert_solves_the_task",
    "HalfReward": "test_the_expert_s_rewards_sum_to_what_gold_is_worth",
    "WrongDistance": "test_distance_is_the_number_of_expert_steps_left",
    "MoodyReward": "test_same_task_seed_and_actions_give_the_same_trace",
    "HashOrder": "test_trace_is_the_same_in_other_processes_and_under_other_hash_seeds",
    "SeedInKey": "test_states_are_keyed_without_the_seed",
    "TupleInInfo": "test_what_a_step_gives_is_json_and_its_terms_sum_to_its_reward",
    "Fragile": "test_malformed_actions_survive_and_are_answered",
    "Silent": "test_malformed_actions_survive_and_are_answered",
    "Deaf": "test_malformed_actions_survive_and_are_answered",
    "NoPenalty": "test_malformed_penalty_is_a_reward_term",
    "OwnLimit": "test_step_limit_truncates_and_never_terminates",
    "NoLimit": "test_step_limit_truncates_and_never_terminates",
    "SelfStarting": "test_a_step_before_reset_or_after_the_end_is_refused",
    "ShortMemory": "test_snapshot_equals_replay",
    "Rewriting": "test_accumulated_prompts_extend_each_other",
    "Sprawling": "test_a_rebuilt_state_keeps_to_its_budget_and_its_instructions_whole",
    "CutInstructions": "test_a_rebuilt_state_keeps_to_its_budget_and_its_instructions_whole",
    "Shaped": "test_step_rewards_add_their_terms_and_change_nothing_else",
    "Leaky": "test_solutions_are_not_in_what_is_public",
    "StructuredLabels": "test_solutions_are_not_in_what_is_public",
}
CLAIMS = [name for name in vars(EnvContract) if name.startswith("test_")]


@pytest.fixture(autouse=True)
def _stubs(install_plugin: Callable[[Mapping[str, str]], None]) -> None:
    install_plugin(ENTRY_POINTS)
    register_with_gymnasium()


class TestGood(EnvContract):
    env_id = "stub/Good-v0"


class TestWithoutExpert(EnvContract):
    env_id = "stub/WithoutExpert-v0"
    has_expert = False
    malformed = MALFORMED[:3]

    def respond(self, env: AnyEnv) -> str:
        return f"<answer>{env.num_steps}</answer>"


def suite(env_id: str) -> EnvContract:
    """Return the suite for an environment."""

    class Suite(EnvContract):
        pass

    Suite.env_id = env_id
    return Suite()


def check(contract: EnvContract, claim: str, rendering: str) -> None:
    method = getattr(contract, claim)
    method(**({"rendering": rendering} if inspect.signature(method).parameters else {}))


def test_every_claim_has_an_environment_that_breaks_it() -> None:
    assert set(BROKEN.values()) == set(CLAIMS)
    assert {f"stub/{name}-v0" for name in BROKEN} <= set(ENTRY_POINTS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_environment_fails_the_claim_that_it_breaks(name: str) -> None:
    contract = suite(f"stub/{name}-v0")
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(contract, BROKEN[name], "rebuilt")


@pytest.mark.parametrize("name", ["Fragile", "Silent", "Deaf"])
def test_what_breaks_rebuilt_states_breaks_accumulated_ones(name: str) -> None:
    with pytest.raises(AssertionError):
        check(suite(f"stub/{name}-v0"), BROKEN[name], "accumulated")


def test_an_environment_that_cannot_be_made_fails_with_its_own_message() -> None:
    with pytest.raises(LookupError, match="there is no environment 'stub/Nothing-v0'"):
        suite("stub/Nothing-v0").test_states_are_keyed_without_the_seed()


def test_play_returns_an_outcome_and_a_key_for_each_step() -> None:
    env = make("stub/Good-v0")
    outcomes, trace_keys = play(env, "dev-1", 0, expert_action)
    assert [outcome.reward for outcome in outcomes] == [0.0, 1.0]
    assert len(set(trace_keys)) == 3
    assert trace_keys[-1] == env.trace_key


def test_an_expert_that_is_silent_is_named() -> None:
    env = make("stub/WithoutExpert-v0")
    env.start("dev-0", 0)
    with pytest.raises(AssertionError, match="stub/WithoutExpert-v0 has no expert action"):
        expert_action(env)


def test_a_random_action_is_admissible_where_the_state_says_what_is() -> None:
    rng = np.random.default_rng(0)
    grid = make("steppo/KeyDoor-v0")
    grid.start("dev/0", 0)
    drawn = {random_action(grid, rng) for _ in range(100)}
    assert drawn == {f"<act> go {to} </act>" for to in ("north", "south", "west", "east")}
    box = make("stub/Good-v0")
    box.start("dev-0", 0)
    assert {random_action(box, rng) for _ in range(100)} <= set(MALFORMED)
