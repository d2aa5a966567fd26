"""Conformance suites that plugin authors run on their own code with pytest.

::

    class TestMyEnv(EnvContract):
        env_id = "acme/MyEnv-v0"

Each method is one claim of the contract in `steppo_env.env`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from steppo_env.env import AnyEnv
from steppo_env.errors import EpisodeEnded, EpisodeNotStarted, UnknownTask
from steppo_env.mdp import Outcome
from steppo_env.registry import env_class, make

__all__ = ["EnvContract", "play", "random_action"]

MAX_STEPS = 1_000
MALFORMED = (
    "",
    "no tags at all",
    "<tool_call>{not json</tool_call>",
    '<tool_call>{"name": "no_such_tool", "arguments": {}}</tool_call>',
    "<act></act>",
    "<think> unfinished",
    "\x00 \ud800 \u202e <answer>",
)


def play(
    env: AnyEnv, task_id: str, seed: int, choose: Callable[[AnyEnv], str]
) -> tuple[list[Outcome], list[str]]:
    """Play one episode to its end; return its outcomes and its trace key after each step."""
    env.start(task_id, seed)
    outcomes: list[Outcome] = []
    trace_keys = [env.trace_key]
    while not env.has_ended:
        outcomes.append(env.advance(choose(env)))
        trace_keys.append(env.trace_key)
        assert len(outcomes) <= MAX_STEPS, f"{env.env_id} never ends"
    return outcomes, trace_keys


def expert_action(env: AnyEnv) -> str:
    """Return the expert's next response."""
    action = env.expert()
    assert action is not None, f"{env.env_id} has no expert action before its end"
    return action.content


def random_action(env: AnyEnv, rng: np.random.Generator) -> str:
    """Return an admissible command where the state lists them, else some text."""
    admissible = env.observation.admissible_actions
    if admissible:
        return f"<act> {admissible[int(rng.integers(len(admissible)))]} </act>"
    return str(rng.choice(MALFORMED[:5]))


class EnvContract:
    """What every environment promises. Subclass it and set `env_id`.

    Attributes:
        env_id: The registered environment.
        options: Options to make it with.
        split: Where the suite takes its tasks.
        num_tasks: How many of them it plays.
    """

    env_id: ClassVar[str]
    options: ClassVar[Mapping[str, object]] = {}
    split: ClassVar[str] = "dev"
    num_tasks: ClassVar[int] = 3

    def make(self, **options: object) -> AnyEnv:
        """Make the environment under test."""
        return make(self.env_id, **{**self.options, **options})

    def task_ids(self, env: AnyEnv) -> list[str]:
        """Return the ids of the first tasks of the split."""
        count = min(self.num_tasks, env.tasks.splits[self.split])
        return [env.tasks.at(self.split, index).task_id for index in range(count)]

    @pytest.mark.filterwarnings("ignore:.*different from the unwrapped version.*")
    @pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes.*")
    def test_gymnasium_check_env_passes(self) -> None:
        env = gymnasium.spec(self.env_id).make(**self.options).unwrapped
        check_env(env)
        env.close()

    def test_task_ids_are_stable_unique_and_found(self) -> None:
        env = self.make()
        for split, count in env.tasks.splits.items():
            shown = [env.tasks.at(split, index) for index in range(min(count, 50))]
            assert len({task.task_id for task in shown}) == len(shown)
            assert all(task.split == split for task in shown)
            assert all(env.tasks.get(task.task_id) == task for task in shown)
            with pytest.raises(UnknownTask):
                env.tasks.at(split, count)
        with pytest.raises(UnknownTask):
            env.tasks.get("no such task")

    def test_expert_solves_the_task(self) -> None:
        env = self.make()
        for task_id in self.task_ids(env):
            outcomes, _ = play(env, task_id, 0, expert_action)
            last = outcomes[-1]
            assert last.info["success"] is True, f"{task_id}: {last.info}"
            assert last.terminated
            assert not last.truncated

    def test_same_task_seed_and_actions_give_the_same_trace(self) -> None:
        env = self.make()
        for task_id in self.task_ids(env):
            first = play(env, task_id, 7, expert_action)
            assert play(self.make(), task_id, 7, expert_action) == first

    def test_trace_is_the_same_in_other_processes_and_under_other_hash_seeds(self) -> None:
        env = self.make()
        task_ids = self.task_ids(env)
        expected = [play(env, task_id, 7, expert_action)[1] for task_id in task_ids]
        for hash_seed in ("0", "12345"):
            assert _trace_keys_elsewhere(self.env_id, self.options, task_ids, hash_seed) == expected

    def test_states_are_keyed_without_the_seed(self) -> None:
        env = self.make()
        (task_id, *_) = self.task_ids(env)
        first = env.start(task_id, 1)
        traced = env.trace_key
        assert env.start(task_id, 1).state_key == first.state_key
        env.start(task_id, 2)
        assert env.trace_key != traced

    def test_malformed_actions_survive_and_are_answered(self) -> None:
        env = self.make()
        (task_id, *_) = self.task_ids(env)
        for text in MALFORMED:
            env.start(task_id, 0)
            outcome = env.advance(text)
            assert not outcome.terminated, f"{text!r} ended the episode"
            assert outcome.rejected, f"{text!r} was not reported"
            shown = "\n".join(message.content for message in outcome.observation.messages)
            assert all(reason in shown for reason in outcome.rejected), shown

    def test_malformed_penalty_is_a_reward_term(self) -> None:
        env = self.make(malformed_penalty=0.25)
        (task_id, *_) = self.task_ids(env)
        env.start(task_id, 0)
        outcome = env.advance(MALFORMED[1])
        assert outcome.reward_terms["malformed"] == -0.25
        assert outcome.reward == pytest.approx(sum(outcome.reward_terms.values()))

    def test_step_limit_truncates_and_never_terminates(self) -> None:
        env = self.make(step_limit=2)
        (task_id, *_) = self.task_ids(env)
        outcomes, _ = play(env, task_id, 0, lambda _: MALFORMED[1])
        assert [(item.terminated, item.truncated) for item in outcomes] == [
            (False, False),
            (False, True),
        ]
        assert outcomes[-1].info["success"] is False

    def test_a_step_before_reset_or_after_the_end_is_refused(self) -> None:
        env = self.make(step_limit=1)
        with pytest.raises(EpisodeNotStarted):
            env.advance("anything")
        (task_id, *_) = self.task_ids(env)
        play(env, task_id, 0, lambda _: MALFORMED[1])
        with pytest.raises(EpisodeEnded):
            env.advance("anything")

    def test_snapshot_equals_replay(self) -> None:
        env = self.make()
        (task_id, *_) = self.task_ids(env)
        env.start(task_id, 3)
        env.advance(expert_action(env))
        snapshot = env.snapshot()
        if snapshot is None:
            return
        fork = self.make()
        assert fork.restore(snapshot) == env.observation
        while not env.has_ended:
            text = expert_action(env)
            assert expert_action(fork) == text
            assert fork.advance(text) == env.advance(text)
            assert fork.trace_key == env.trace_key

    def test_accumulated_prompts_extend_each_other(self) -> None:
        env = self.make(rendering="accumulated")
        (task_id, *_) = self.task_ids(env)
        env.start(task_id, 0)
        while not env.has_ended:
            before = env.observation.messages
            text = expert_action(env)
            env.advance(text)
            after = env.observation.messages
            assert after[: len(before)] == before
            assert after[len(before)].content == text

    def test_solutions_are_not_in_what_is_public(self) -> None:
        """Labels are shown to every client: they hold short facts, never structures."""
        env = self.make()
        for index in range(min(5, env.tasks.splits[self.split])):
            labels = env.tasks.at(self.split, index).labels
            assert all(isinstance(value, str | int) for value in labels.values())


_ELSEWHERE = """
import json, sys
from steppo_env.testing import expert_action, play
from steppo_env.registry import make
env_id, options, task_ids = json.loads(sys.argv[1])
env = make(env_id, **options)
print(json.dumps([play(env, task_id, 7, expert_action)[1] for task_id in task_ids]))
"""


def _trace_keys_elsewhere(
    env_id: str, options: Mapping[str, object], task_ids: Sequence[str], hash_seed: str
) -> list[list[str]]:
    env_class(env_id)  # fails here, with its own message, when the plugin cannot be loaded
    argument = json.dumps([env_id, dict(options), list(task_ids)])
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, argument],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    keys: list[list[str]] = json.loads(done.stdout)
    return keys
