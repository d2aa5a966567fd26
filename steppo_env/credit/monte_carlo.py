"""Credit from forks: the value of a state is what continuations sampled from it really earn."""

import numpy as np

from steppo_env.credit.credit import Credit
from steppo_env.credit.gae import end_values
from steppo_env.credit.layout import StepBatch
from steppo_env.credit.recurrence import discounted_sums
from steppo_env.credit.segments import Floats
from steppo_env.credit.settings import check_discount
from steppo_env.errors import InvalidInput

__all__ = ["monte_carlo"]


def monte_carlo(batch: StepBatch, gamma: float) -> Credit:
    """Advantage against the mean return of forks (VinePPO, Kazemnejad et al. 2024, arXiv 2410.01679).

    V(s_t) is the mean discounted return of the continuations sampled from s_t, and
    A_t = r_t + gamma V(s_{t+1}) - V(s_t); after the end V is 0 or the bootstrap value. The estimate is
    unbiased; its variance falls with the number of forks.

    Returns:
        Level "step"; the diagnostics have the estimated `value` and the `num_forks` of each step.

    Raises:
        InvalidInput: A step has no fork, or a truncated trajectory no bootstrap value.

    From the first state one of two forks succeeds, from the second both: the first step is worth +0.5.

    >>> batch = StepBatch.from_arrays(
    ...     trajectory=["a", "a"], step=[0, 1], reward=[0.0, 1.0],
    ...     forks={("a", 0): [[0.0, 1.0], [0.0, 0.0]], ("a", 1): [[1.0], [1.0]]},
    ... )
    >>> monte_carlo(batch, gamma=1.0).advantages
    array([0.5, 0. ])
    """
    check_discount("gamma", gamma)
    value, num_forks = _fork_values(batch, gamma)
    following = batch.steps.next_of(value, end_values(batch))
    returns = batch.reward + gamma * following
    return Credit(
        batch.to_input_order(returns - value),
        batch.to_input_order(returns),
        "step",
        {"value": batch.to_input_order(value), "num_forks": batch.to_input_order(num_forks)},
    )


def _fork_values(batch: StepBatch, gamma: float) -> tuple[Floats, Floats]:
    """Return the mean discounted return of each step's forks, and how many there are."""
    forks = batch.forks
    num_forks = np.zeros(batch.num_steps)
    if forks is not None:
        num_forks = np.bincount(forks.owner, minlength=batch.num_steps).astype(np.float64)
    if forks is None or not num_forks.all():
        place = int(num_forks.argmin())
        raise InvalidInput(
            f"trajectory {batch.trajectory[place]}, step {batch.step[place]} has no fork; Monte-Carlo "
            "credit needs at least one continuation from the state of each step"
        )
    earned = discounted_sums(forks.reward, gamma, forks.segments)[forks.segments.first]
    return np.bincount(forks.owner, earned, minlength=batch.num_steps) / num_forks, num_forks
