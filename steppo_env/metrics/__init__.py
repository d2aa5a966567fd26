"""Scores of answers, rankings, rates, values and policies, and how sure a sample makes of them."""

from steppo_env.metrics.answers import exact_match, normalize_answer, token_f1
from steppo_env.metrics.comparison import PairedComparison, compare_paired
from steppo_env.metrics.intervals import bootstrap_interval
from steppo_env.metrics.ranking import RetrievalScore, retrieval_score
from steppo_env.metrics.rates import pass_at_k, pass_hat_k, wilson_interval
from steppo_env.metrics.trajectories import trajectory_mean
from steppo_env.metrics.values import explained_variance, explained_variance_by_step

__all__ = [
    "PairedComparison",
    "RetrievalScore",
    "bootstrap_interval",
    "compare_paired",
    "exact_match",
    "explained_variance",
    "explained_variance_by_step",
    "normalize_answer",
    "pass_at_k",
    "pass_hat_k",
    "retrieval_score",
    "token_f1",
    "trajectory_mean",
    "wilson_interval",
]
