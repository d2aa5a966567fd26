"""The running episode of a StepEnv, and what completes a step in the same way in every environment."""

import math
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from pydantic import JsonValue

from steppo_env.errors import EnvError, boundary
from steppo_env.keys import canonical_json, next_trace_key
from steppo_env.mdp import Action, Observation, Outcome, Task
from steppo_env.options import EnvOptions
from steppo_env.rendering import Transcript
from steppo_env.step_rewards import RewardedEnv, add_terms, first_measures, next_measures
from steppo_env.step_rewards.stack import MALFORMED

__all__ = ["Episode"]

TaskT = TypeVar("TaskT", bound=Task)


@dataclass(slots=True)
class Episode(Generic[TaskT]):
    """What StepEnv knows about the running episode.

    Attributes:
        env_id: Names the environment in errors.
        failed: True when environment code raised: what state it is in nobody knows.
        transcript: All messages so far, where states are accumulated.
        measures: What each of the step rewards measured in the current state.
    """

    env_id: str
    task: TaskT
    seed: int
    observation: Observation
    trace_key: str
    num_steps: int = 0
    num_rejected: int = 0
    terminated: bool = False
    truncated: bool = False
    failed: bool = False
    transcript: Transcript | None = None
    measures: tuple[float, ...] = ()

    @property
    def ended(self) -> bool:
        """True when the episode takes no further step."""
        return self.terminated or self.truncated or self.failed

    def measure(self, env: RewardedEnv, options: EnvOptions) -> None:
        """Measure the first state for the step rewards.

        Raises:
            InvalidOptions: One of them cannot be given for this environment or task.
            EnvError: One of them failed.
        """
        self.measures = first_measures(options.step_rewards, env)

    def take(
        self, action: Action, given: Outcome, options: EnvOptions, env: RewardedEnv
    ) -> Outcome:
        """Take a step: complete the outcome that the environment gave, and move on to it.

        Args:
            env: The environment of this episode, for the step rewards to measure.

        Raises:
            EnvError: The environment, or a step reward, gave what the contract forbids.
        """
        outcome = self._completed(action, given, options)
        is_same_state = outcome.observation.state_key == self.observation.state_key
        self.num_steps += 1
        self.num_rejected += len(outcome.rejected)
        self.observation = outcome.observation
        self.terminated, self.truncated = outcome.terminated, outcome.truncated
        if options.step_rewards:
            outcome = self._rewarded(action, outcome, options, env, is_same_state)
        self.trace_key = next_trace_key(self.trace_key, action, outcome)
        return outcome

    def _rewarded(
        self,
        action: Action,
        outcome: Outcome,
        options: EnvOptions,
        env: RewardedEnv,
        is_same_state: bool,
    ) -> Outcome:
        """Measure the state that the step led to, and add the terms of the step rewards."""
        rewards, before = options.step_rewards, self.measures
        self.measures = next_measures(rewards, env, before, is_same_state=is_same_state)
        terms = add_terms(rewards, env, before, self.measures, action, outcome)
        return replace(outcome, reward_terms=terms)

    def _completed(self, action: Action, given: Outcome, options: EnvOptions) -> Outcome:
        """Add limit, penalty, counts and transcript."""
        rejected = (*action.rejections, *given.rejected)
        terms = self._reward_terms(given, options.malformed_penalty if rejected else 0.0)
        if given.terminated and given.truncated:
            raise EnvError(f"{self.env_id} gave a step that is both terminated and truncated")
        at_limit = self.num_steps + 1 >= options.step_limit and not given.terminated
        info: dict[str, JsonValue] = {
            **given.info,
            "step_index": self.num_steps,
            "rejected": list(rejected),
            "num_rejected": self.num_rejected + len(rejected),
        }
        if at_limit and not given.truncated:
            info["step_limit"] = True
        if at_limit or given.truncated or given.terminated:
            info.setdefault("success", False)
        with boundary(EnvError, f"{self.env_id}: writing info as JSON"):
            canonical_json(info)  # a fault that would otherwise show on the wire or in the store
        observation = given.observation
        if self.transcript is not None:
            messages = self.transcript.extend(action, observation.text)
            observation = replace(observation, messages=messages)
        return replace(
            given,
            observation=observation,
            reward_terms=terms,
            truncated=given.truncated or at_limit,
            rejected=rejected,
            info=info,
        )

    def _reward_terms(self, outcome: Outcome, malformed_penalty: float) -> dict[str, float]:
        """Return the terms as plain floats, with the penalty where it is due."""
        if MALFORMED in outcome.reward_terms:
            raise EnvError(f"{self.env_id}: the reward term {MALFORMED!r} is StepEnv's own")
        terms = {name: float(term) for name, term in outcome.reward_terms.items()}
        if malformed_penalty:
            terms[MALFORMED] = -malformed_penalty
        if not math.isfinite(sum(terms.values())):
            raise EnvError(f"{self.env_id}: the reward is not finite: {terms}")
        return terms
