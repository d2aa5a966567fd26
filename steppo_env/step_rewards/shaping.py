"""Potential-based shaping by the distance to the goal, which changes no optimal policy."""

from pydantic import Field

from steppo_env.errors import EnvError, InvalidOptions
from steppo_env.mdp import Action, Outcome
from steppo_env.step_rewards.base import RewardedEnv, StepReward

__all__ = ["Shaping"]


class Shaping(StepReward):
    """Rewards the way towards the goal: F(s, s') = gamma Phi(s') - Phi(s).

    Phi(s) = -scale * distance(s), the distance in expert steps. Ng, Harada and Russell, Policy
    Invariance Under Reward Transformations (ICML 1999), theorem 1: with the discount of the learner as
    gamma, the optimal policies stay the same, whatever Phi is.

    In episodes that end, this needs Phi = 0 in the last state (Grzes, Reward Shaping in Episodic
    Reinforcement Learning, AAMAS 2017); then the discounted sum of F is -Phi(s0) for every policy. So
    Phi is 0 in a terminal state, and where a truncated episode says what follows is worth
    (`bootstrap_value` in info). At any other truncation Phi stays: the MDP goes on, and the value
    that a critic bootstraps from is that of the shaped MDP, V(s) - Phi(s).
    """

    kind = "shaping"
    gamma: float = Field(
        default=1.0, ge=0.0, le=1.0, description="The discount that the learner uses."
    )
    scale: float = Field(
        default=1.0, gt=0.0, le=100.0, description="Potential of one expert step, in reward."
    )

    def check(self, env: RewardedEnv) -> None:
        if env.distance() is None:
            raise InvalidOptions(
                f"the step reward {self.term_name} needs the distance to the goal, which "
                f"{env.env_id} does not know for task {env.task.task_id}",
                options=["step_rewards"],
            )

    def measure(self, env: RewardedEnv) -> float:
        """Return Phi of the current state."""
        if env.has_terminated:
            return 0.0
        distance = env.distance()
        if distance is None:
            raise EnvError(
                f"the step reward {self.term_name} needs the distance to the goal, which "
                f"{env.env_id} does not know after step {env.num_steps} of task {env.task.task_id}"
            )
        return -self.scale * distance

    def term(self, before: float, after: float, action: Action, outcome: Outcome) -> float:
        is_value_known = outcome.terminated or (
            outcome.truncated and "bootstrap_value" in outcome.info
        )
        return (0.0 if is_value_known else self.gamma * after) - before
