"""Credit assignment over step-level trajectories: pure functions of arrays, no I/O.

A `StepBatch` holds ragged trajectories without padding; an estimator gives each step (or token) a raw
advantage and a return; `normalize` and `spread` prepare them for a loss.
"""

from steppo_env.credit.credit import Credit
from steppo_env.credit.estimators import ESTIMATORS, estimate, names
from steppo_env.credit.gae import step_gae, token_gae, token_gae_step_discount
from steppo_env.credit.gigpo import gigpo
from steppo_env.credit.group import (
    broadcast,
    dr_grpo,
    grpo,
    reinforce_pp,
    reinforce_pp_baseline,
    rloo,
)
from steppo_env.credit.layout import StepBatch
from steppo_env.credit.monte_carlo import monte_carlo
from steppo_env.credit.normalize import normalize, spread
from steppo_env.credit.rows import Forks

__all__ = [
    "ESTIMATORS",
    "Credit",
    "Forks",
    "StepBatch",
    "broadcast",
    "dr_grpo",
    "estimate",
    "gigpo",
    "grpo",
    "monte_carlo",
    "names",
    "normalize",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "rloo",
    "spread",
    "step_gae",
    "token_gae",
    "token_gae_step_discount",
]
