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
from dataclasses import replace
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from steppo_env.env import AnyEnv, StepEnv
from steppo_env.errors import EpisodeEnded, EpisodeNotStarted, UnknownTask
from steppo_env.mdp import Outcome
from steppo_env.registry import env_class, make

__all__ = ["MALFORMED", "EnvContract", "expert_action", "play", "random_action"]

MAX_STEPS = 1_000
MIN_STATE_CHARS = 1_000
MALFORMED = (
    "",
    "no tags at all",
    "<tool_call>{not json</tool_call>",
    '<tool_call>{"name": "no_such_tool", "arguments": {}}</tool_call>',
    "<act></act>",
    "<think> unfinished",
    "\x00 \ud800 \u202e <answer>",
)
"""Responses that no environment with tags or tools can execute."""


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
        has_expert: False for an environment without one; episodes are then played by `respond`,
            which the subclass overrides.
        expert_return: What the expert's rewards of an episode sum to; None where that depends on the
            task. Gold scores 1 unless the suite's options say otherwise.
        malformed: Responses that the environment cannot execute.
    """

    env_id: ClassVar[str]
    options: ClassVar[Mapping[str, object]] = {}
    split: ClassVar[str] = "dev"
    num_tasks: ClassVar[int] = 3
    has_expert: ClassVar[bool] = True
    expert_return: ClassVar[float | None] = 1.0
    malformed: ClassVar[Sequence[str]] = MALFORMED

    def make(self, **options: object) -> AnyEnv:
        """Return a new environment with the suite's options and these."""
        return make(self.env_id, **{**self.options, **options})

    def respond(self, env: AnyEnv) -> str:
        """Return a well-formed response to the current state: the expert's."""
        return expert_action(env)

    def task_ids(self, env: AnyEnv) -> list[str]:
        """Return the ids of the tasks that the suite plays."""
        count = min(self.num_tasks, env.tasks.splits[self.split])
        assert count > 0, f"split {self.split} has no tasks"
        return [env.tasks.at(self.split, index).task_id for index in range(count)]

    @pytest.mark.filterwarnings("ignore:.*render_mode.*")
    @pytest.mark.filterwarnings("ignore:.*Overriding environment.*")
    @pytest.mark.filterwarnings("ignore:.*not within the unwrapped version.*")
    @pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes.*")
    def test_gymnasium_check_env_passes(self) -> None:
        env = gymnasium.spec(self.env_id).make(**self.options).unwrapped
        check_env(env)
        env.close()

    def test_the_book_keeping_is_step_env_s_own(self) -> None:
        for name in ("start", "advance", "reset", "step", "snapshot", "restore", "trace_key"):
            assert getattr(env_class(self.env_id), name) is getattr(StepEnv, name), name

    def test_task_ids_are_stable_unique_and_found(self) -> None:
        env = self.make()
        other = self.make()
        for split, count in env.tasks.splits.items():
            shown = [env.tasks.at(split, index) for index in range(min(count, 50))]
            assert len({task.task_id for task in shown}) == len(shown)
            assert all(task.split == split for task in shown)
            assert all(env.tasks.get(task.task_id) == task for task in shown)
            assert [other.tasks.at(split, index) for index in range(len(shown))] == shown
            for index in (-1, count):
                with pytest.raises(UnknownTask):
                    env.tasks.at(split, index)
        with pytest.raises(UnknownTask):
            env.tasks.at("no such split", 0)
        with pytest.raises(UnknownTask):
            env.tasks.get("no such task")

    def test_expert_solves_the_task(self) -> None:
        if not self.has_expert:
            pytest.skip(f"{self.env_id} has no expert")
        env = self.make()
        for task_id in self.task_ids(env):
            outcomes, _ = play(env, task_id, 0, expert_action)
            last = outcomes[-1]
            assert last.info["success"] is True, f"{task_id}: {last.info}"
            assert last.terminated
            assert not last.truncated

    def test_the_expert_s_rewards_sum_to_what_gold_is_worth(self) -> None:
        if not self.has_expert or self.expert_return is None:
            pytest.skip(f"{self.env_id} has no expert whose return is the same for every task")
        env = self.make()
        for task_id in self.task_ids(env):
            outcomes, _ = play(env, task_id, 0, expert_action)
            total = sum(outcome.reward for outcome in outcomes)
            assert total == pytest.approx(self.expert_return), task_id

    def test_distance_is_the_number_of_expert_steps_left(self) -> None:
        if not self.has_expert:
            pytest.skip(f"{self.env_id} has no expert")
        env = self.make()
        for task_id in self.task_ids(env):
            env.start(task_id, 0)
            distances = [env.distance()]
            while not env.has_ended:
                env.advance(expert_action(env))
                distances.append(env.distance())
            expected = range(len(distances) - 1, -1, -1)
            assert all(given in (None, left) for given, left in zip(distances, expected)), distances

    def test_same_task_seed_and_actions_give_the_same_trace(self) -> None:
        env = self.make()
        for task_id in self.task_ids(env):
            first = play(env, task_id, 7, self.respond)
            assert play(self.make(), task_id, 7, self.respond) == first
            assert play(env, task_id, 7, self.respond) == first

    def test_trace_is_the_same_in_other_processes_and_under_other_hash_seeds(self) -> None:
        env = self.make()
        texts: dict[str, list[str]] = {}
        expected: dict[str, list[str]] = {}
        for task_id in self.task_ids(env):
            said: list[str] = []

            def choose(env: AnyEnv, said: list[str] = said) -> str:
                said.append(self.respond(env))
                return said[-1]

            expected[task_id] = play(env, task_id, 7, choose)[1]
            texts[task_id] = said
        for hash_seed in ("0", "12345"):
            assert _trace_keys_elsewhere(self.env_id, self.options, texts, hash_seed) == expected

    def test_states_are_keyed_without_the_seed(self) -> None:
        """An environment that hides in its first state what it drew must override this claim."""
        env = self.make()
        (task_id, *_) = self.task_ids(env)
        first = env.start(task_id, 1)
        traced = env.trace_key
        assert env.start(task_id, 1).state_key == first.state_key
        second = env.start(task_id, 2)
        assert env.trace_key != traced
        if second == replace(first, state_key=second.state_key):
            assert second.state_key == first.state_key, "one state under two keys"

    def test_what_a_step_gives_is_json_and_its_terms_sum_to_its_reward(self) -> None:
        env = self.make()
        (task_id, *_) = self.task_ids(env)
        outcomes, _ = play(env, task_id, 0, self.respond)
        for outcome in outcomes:
            assert json.loads(json.dumps(dict(outcome.info))) == outcome.info
            assert outcome.reward == pytest.approx(sum(outcome.reward_terms.values()))
            for tool in outcome.observation.tools:
                assert tool.parameters["type"] == "object", tool
                assert json.loads(json.dumps(dict(tool.parameters))) == tool.parameters
        assert isinstance(outcomes[-1].info["success"], bool)

    @pytest.mark.parametrize("rendering", ["rebuilt", "accumulated"])
    def test_malformed_actions_survive_and_are_answered(self, rendering: str) -> None:
        env = self.make(rendering=rendering)
        (task_id, *_) = self.task_ids(env)
        for text in self.malformed:
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
        outcome = env.advance(self.malformed[1])
        assert outcome.reward_terms.get("malformed") == -0.25
        assert outcome.reward == pytest.approx(sum(outcome.reward_terms.values()))

    def test_step_limit_truncates_and_never_terminates(self) -> None:
        env = self.make(step_limit=2)
        (task_id, *_) = self.task_ids(env)
        outcomes, _ = play(env, task_id, 0, lambda _: self.malformed[1])
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
        play(env, task_id, 0, lambda _: self.malformed[1])
        with pytest.raises(EpisodeEnded):
            env.advance("anything")

    @pytest.mark.parametrize("rendering", ["rebuilt", "accumulated"])
    def test_snapshot_equals_replay(self, rendering: str) -> None:
        env, fork = self.make(rendering=rendering), self.make(rendering=rendering)
        env.start(self.task_ids(env)[0], 3)
        text = self.malformed[1]  # what it said must come back as well
        while not env.has_ended:
            snapshot = env.snapshot()
            if snapshot is None:
                return
            assert fork.restore(snapshot) == env.observation
            assert fork.advance(text) == env.advance(text)
            assert fork.trace_key == env.trace_key
            assert fork.snapshot() == env.snapshot()
            if not env.has_ended:
                text = self.respond(env)
                assert self.respond(fork) == text
        last = env.snapshot()
        assert last is not None
        assert fork.restore(last) == env.observation
        assert fork.has_ended

    def test_accumulated_prompts_extend_each_other(self) -> None:
        env = self.make(rendering="accumulated")
        env.start(self.task_ids(env)[0], 0)
        text = self.malformed[1]
        while not env.has_ended:
            before = env.observation.messages
            env.advance(text)
            after = env.observation.messages
            assert after[: len(before)] == before
            assert after[len(before)].content == text
            assert len(after) > len(before) + 1, "the response was not answered"
            text = "" if env.has_ended else self.respond(env)

    def test_a_rebuilt_state_keeps_to_its_budget_and_its_instructions_whole(self) -> None:
        """What the smallest budget does not shorten, no budget has to."""
        budgets = (MIN_STATE_CHARS, 3 * MIN_STATE_CHARS, 24 * MIN_STATE_CHARS)
        least, *others = [self.make(state_chars=budget, rendering="rebuilt") for budget in budgets]
        for env in (least, *others):
            env.start(self.task_ids(env)[0], 0)
        text = self.malformed[1]
        while True:
            uncut = _instructions(least)
            for env, budget in zip(others, budgets[1:]):
                assert _instructions(env) == uncut, "a budget changed the instructions"
                assert env.observation.tools == least.observation.tools
                assert env.observation.state_key == least.observation.state_key
                assert _num_chars(env) <= max(budget, _num_chars(least)), f"budget {budget}"
            if least.has_ended:
                break
            outcomes = [env.advance(text) for env in (least, *others)]
            assert len({outcome.reward for outcome in outcomes}) == 1, "a budget changed the reward"
            text = "" if least.has_ended else self.respond(others[-1])

    def test_step_rewards_add_their_terms_and_change_nothing_else(self) -> None:
        plain = self.make()
        plain.start(self.task_ids(plain)[0], 3)
        distances = [plain.distance()]
        said: list[str] = []
        expected: list[Outcome] = []
        while not plain.has_ended:
            said.append(self.respond(plain) if said else self.malformed[1])
            expected.append(plain.advance(said[-1]))
            distances += [] if plain.has_terminated else [plain.distance()]
        knows_distance = None not in distances
        stack = [*_STACK, *([_SHAPING] if knows_distance else [])]
        env, fork = self.make(step_rewards=stack), self.make(step_rewards=stack[::-1])
        env.start(plain.task.task_id, 3)
        for text, outcome in zip(said, expected):
            snapshot = env.snapshot()
            given = env.advance(text)
            added = {item["name"]: given.reward_terms[item["name"]] for item in stack}
            assert replace(given, reward_terms=outcome.reward_terms) == outcome
            assert given.reward_terms == {**outcome.reward_terms, **added}
            assert given.reward == pytest.approx(outcome.reward + sum(added.values()))
            if snapshot is not None:
                fork.restore(snapshot)
                assert fork.advance(text) == given
                assert fork.trace_key == env.trace_key
        if knows_distance and plain.has_terminated:
            replayed, _ = play(env, plain.task.task_id, 3, lambda env: said[env.num_steps])
            shaped = sum(outcome.reward_terms["added.shaping"] for outcome in replayed)
            assert shaped == pytest.approx(distances[0]), "the terms do not sum to -Phi(s0)"

    def test_solutions_are_not_in_what_is_public(self) -> None:
        """Labels are shown to every client: short facts, and never what the expert answers."""
        env = self.make()
        for task_id in self.task_ids(env):
            labels = env.tasks.get(task_id).labels
            assert all(isinstance(value, str | int) for value in labels.values()), labels
            public = "\n".join(str(value) for value in labels.values()).casefold()
            for answer in self._answers(env, task_id):
                assert answer.casefold() not in public, f"{task_id}: {answer!r} is in {labels}"

    def _answers(self, env: AnyEnv, task_id: str) -> set[str]:
        """Return the expert's answers that are too long to be in a label by chance."""
        answers: set[str] = set()
        if self.has_expert:
            env.start(task_id, 0)
            while not env.has_ended:
                action = env.expert()
                assert action is not None, f"{self.env_id} has no expert action before its end"
                answers.add(action.answer or "")
                env.advance(action)
        return {answer for answer in answers if len(answer) >= 4}


_STACK: tuple[dict[str, Any], ...] = (
    {"kind": "step_cost", "amount": 0.25, "name": "added.cost"},
    {"kind": "format_penalty", "amount": 0.5, "name": "added.format"},
    {"kind": "invalid_action_penalty", "amount": 0.5, "name": "added.invalid"},
)
_SHAPING: dict[str, Any] = {"kind": "shaping", "gamma": 1.0, "name": "added.shaping"}


def _instructions(env: AnyEnv) -> list[str]:
    return [item.content for item in env.observation.messages if item.role == "system"]


def _num_chars(env: AnyEnv) -> int:
    """Return the length of a state without its instructions."""
    messages = env.observation.messages
    return sum(len(message.content) for message in messages if message.role != "system")


_ELSEWHERE = """
import json, sys
from steppo_env.registry import make
from steppo_env.testing import play
env_id, options, texts = json.loads(sys.argv[1])
env = make(env_id, **options)
keys = {
    task_id: play(env, task_id, 7, lambda env: said[env.num_steps])[1]
    for task_id, said in texts.items()
}
print(json.dumps(keys))
"""


def _trace_keys_elsewhere(
    env_id: str,
    options: Mapping[str, object],
    texts: Mapping[str, Sequence[str]],
    hash_seed: str,
) -> dict[str, list[str]]:
    env_class(env_id)  # fails here, with its own message, when the plugin cannot be loaded
    argument = json.dumps([env_id, dict(options), texts])
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, argument],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    keys: dict[str, list[str]] = json.loads(done.stdout)
    return keys
