"""Rewards for single steps that anyone can stack on any environment, through one option."""

from steppo_env.step_rewards.base import RewardedEnv, StepReward
from steppo_env.step_rewards.kinds import registered_kinds, step_reward_class
from steppo_env.step_rewards.penalties import FormatPenalty, InvalidActionPenalty, StepCost
from steppo_env.step_rewards.shaping import Shaping
from steppo_env.step_rewards.stack import StepRewards, add_terms, first_measures, next_measures

__all__ = [
    "FormatPenalty",
    "InvalidActionPenalty",
    "RewardedEnv",
    "Shaping",
    "StepCost",
    "StepReward",
    "StepRewards",
    "add_terms",
    "first_measures",
    "next_measures",
    "registered_kinds",
    "step_reward_class",
]
