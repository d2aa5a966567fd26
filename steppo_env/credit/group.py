"""Estimators without a critic: a trajectory's return against those of its group.

Notation: R_i is the undiscounted return of trajectory i, with the bootstrap value of a truncated one
where it is known; G is the number of trajectories in its group.
"""

import numpy as np
import numpy.typing as npt

from steppo_env.credit.credit import Credit
from steppo_env.credit.layout import StepBatch
from steppo_env.credit.recurrence import discounted_sums
from steppo_env.credit.segments import Floats, Integers
from steppo_env.credit.settings import check_discount, check_setting
from steppo_env.errors import InvalidInput

__all__ = [
    "STD_EPS",
    "broadcast",
    "centred",
    "dr_grpo",
    "group_of",
    "grpo",
    "known_end_values",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "returns_to_go",
    "rloo",
    "trajectory_returns",
]

STD_EPS = 1e-6
"""Added to a group's standard deviation, as in the reference."""


def known_end_values(batch: StepBatch) -> tuple[Floats, dict[str, int]]:
    """Return what follows each trajectory, 0 where unknown, and how many truncated ones that are."""
    unknown = np.isnan(batch.after)
    counts = {"num_truncated_without_bootstrap": int(unknown.sum())}
    return np.where(unknown, 0.0, batch.after), counts


def trajectory_returns(batch: StepBatch) -> tuple[Floats, dict[str, int]]:
    """Return R, shape (n,), and the count of truncated trajectories without a bootstrap value."""
    after, counts = known_end_values(batch)
    return batch.steps.sums(batch.reward) + after, counts


def returns_to_go(batch: StepBatch, gamma: float) -> tuple[Floats, dict[str, int]]:
    """Return G_t = r_t + gamma G_{t+1}, shape (N,); it crosses steps, not trajectories."""
    check_discount("gamma", gamma)
    after, counts = known_end_values(batch)
    reward = batch.reward.copy()
    reward[batch.steps.last] += gamma * after
    return discounted_sums(reward, gamma, batch.steps, is_scratch=True), counts


def group_of(batch: StepBatch) -> Integers:
    """Return the number of each trajectory's group, shape (n,).

    Raises:
        InvalidInput: The batch has no groups.
    """
    if batch.group is None:
        raise InvalidInput("this compares trajectories of a group; give the batch its group")
    return batch.group


def centred(values: Floats, cluster: Integers, *, eps: float | None) -> tuple[Floats, Integers]:
    """Return each value less its cluster's mean, and the size of each value's cluster.

    A cluster of one, and one whose values are equal, give exactly 0: there is nothing to compare.

    Args:
        eps: Divide by the unbiased standard deviation plus this; None leaves the difference.
    """
    size = np.bincount(cluster)
    centre = np.bincount(cluster, values) / np.maximum(size, 1)
    difference = values - centre[cluster]
    difference[_is_flat(values, cluster)[cluster]] = 0.0
    if eps is not None:
        squares = np.bincount(cluster, difference**2)
        std = np.sqrt(squares / np.maximum(size - 1, 1))
        divisor = std + eps
        divisor[divisor == 0.0] = 1.0  # eps 0 and equal values: the difference is 0 already
        difference = difference / divisor[cluster]
    return difference, size[cluster]


def broadcast(batch: StepBatch) -> Credit:
    """The trajectory's return on every step (the credit of LightningRL in Agent Lightning).

    >>> batch = StepBatch.from_arrays(trajectory=["a", "a"], step=[0, 1], reward=[0.0, 1.0])
    >>> broadcast(batch).advantages
    array([1., 1.])
    """
    returns, counts = trajectory_returns(batch)
    return _on_steps(batch, returns, returns, counts)


def grpo(batch: StepBatch, eps: float = STD_EPS) -> Credit:
    """(R_i - mean) / (std + eps) over the group (Shao et al. 2024, arXiv 2402.03300, section 4.1).

    The standard deviation is the unbiased one, as in the reference.

    Two samples with returns 1 and 0: mean 0.5, std 0.7071.

    >>> batch = StepBatch.from_arrays(
    ...     trajectory=["a", "b"], step=[0, 0], reward=[1.0, 0.0], group={"a": "q", "b": "q"}
    ... )
    >>> grpo(batch).advantages.round(4)
    array([ 0.7071, -0.7071])
    """
    check_setting("eps", eps, least=0.0)
    return _grouped(batch, eps=eps)


def dr_grpo(batch: StepBatch) -> Credit:
    """R_i - mean over the group, without the standard deviation (Liu et al. 2025, arXiv 2503.20783).

    >>> batch = StepBatch.from_arrays(
    ...     trajectory=["a", "b"], step=[0, 0], reward=[1.0, 0.0], group={"a": "q", "b": "q"}
    ... )
    >>> dr_grpo(batch).advantages
    array([ 0.5, -0.5])
    """
    return _grouped(batch)


def rloo(batch: StepBatch) -> Credit:
    """R_i less the mean of the others in the group (Ahmadian et al. 2024, arXiv 2402.14740).

    That is G/(G-1) times the distance from the mean of all.

    Returns 3, 0 and 0: the first is 3 above the others' mean, each other 1.5 below.

    >>> batch = StepBatch.from_arrays(
    ...     trajectory=["a", "b", "c"], step=[0, 0, 0], reward=[3.0, 0.0, 0.0],
    ...     group={"a": "q", "b": "q", "c": "q"},
    ... )
    >>> rloo(batch).advantages
    array([ 3. , -1.5, -1.5])
    """
    credit = _grouped(batch)
    size = np.bincount(group_of(batch))[group_of(batch)]
    factor = size / np.maximum(size - 1, 1)
    per_step = batch.to_input_order(factor[batch.steps.owner])
    return Credit(
        credit.advantages * per_step, credit.returns, "step", credit.diagnostics, credit.counts
    )


def reinforce_pp(batch: StepBatch, gamma: float) -> Credit:
    """The discounted return-to-go of each step (REINFORCE++, Hu et al. 2025, arXiv 2501.03262).

    It crosses steps: with a reward at the end only, every step has its share. Whiten it over the batch
    with `normalize`, which is the method's baseline.

    >>> batch = StepBatch.from_arrays(
    ...     trajectory=["a", "a", "a"], step=[0, 1, 2], reward=[0.0, 0.0, 1.0]
    ... )
    >>> reinforce_pp(batch, gamma=0.5).advantages
    array([0.25, 0.5 , 1.  ])
    """
    returns, counts = returns_to_go(batch, gamma)
    rows = batch.to_input_order(returns)
    return Credit(rows, rows.copy(), "step", {}, counts)


def reinforce_pp_baseline(batch: StepBatch) -> Credit:
    """R_i - mean over the group, to be whitened over the batch (REINFORCE++-baseline).

    Before whitening this is Dr. GRPO's estimate; the method is the two together:
    `normalize(credit.advantages, over="batch")`.

    >>> batch = StepBatch.from_arrays(
    ...     trajectory=["a", "b"], step=[0, 0], reward=[1.0, 0.0], group={"a": "q", "b": "q"}
    ... )
    >>> reinforce_pp_baseline(batch).advantages
    array([ 0.5, -0.5])
    """
    return _grouped(batch)


def _grouped(batch: StepBatch, *, eps: float | None = None) -> Credit:
    group = group_of(batch)
    returns, counts = trajectory_returns(batch)
    advantages, _ = centred(returns, group, eps=eps)
    return _on_steps(batch, advantages, returns, {**counts, **group_counts(returns, group)})


def group_counts(returns: Floats, group: Integers) -> dict[str, int]:
    """Return how many groups have one member, and how many have several with equal returns."""
    size = np.bincount(group)
    return {
        "num_singleton_groups": int((size == 1).sum()),
        "num_zero_variance_groups": int(((size > 1) & _is_flat(returns, group)).sum()),
    }


def _is_flat(values: Floats, cluster: Integers) -> npt.NDArray[np.bool_]:
    """Return which clusters have equal values only; their number is that of the largest + 1."""
    low = np.full(int(cluster.max()) + 1, np.inf)
    high = np.full(len(low), -np.inf)
    np.minimum.at(low, cluster, values)
    np.maximum.at(high, cluster, values)
    is_flat: npt.NDArray[np.bool_] = low == high
    return is_flat


def _on_steps(
    batch: StepBatch, advantages: Floats, returns: Floats, counts: dict[str, int]
) -> Credit:
    """Put per-trajectory values, shape (n,), on each of the trajectory's steps."""
    owner = batch.steps.owner
    return Credit(
        batch.to_input_order(advantages[owner]),
        batch.to_input_order(returns[owner]),
        "step",
        {},
        counts,
    )
