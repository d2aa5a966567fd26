"""Means over trajectories of what their steps say."""

import math
from collections.abc import Hashable, Iterable
from statistics import fmean
from typing import Literal

from numpy.typing import ArrayLike

from steppo_env.errors import InvalidInput
from steppo_env.metrics.samples import checked_values, values_by_id

__all__ = ["trajectory_mean"]


def trajectory_mean(
    values: ArrayLike,
    trajectory: Iterable[Hashable],
    *,
    how: Literal["mean", "sum"] = "mean",
) -> float:
    """Return the mean over trajectories of the mean, or the sum, of their steps' values.

    (1/N) sum_i (1/S_i) sum_t x_it over N trajectories of S_i steps each; for how="sum" without the
    1/S_i. A mean over all steps would weigh a trajectory by its length, and length goes with failure.

    Args:
        values: The value of each step, such as its reward; finite.
        trajectory: The trajectory id of each step; steps of one trajectory need not be neighbours.
        how: "mean" where a step's value stands for its whole trajectory or is a level, such as a
            rate; "sum" where it is a part of a total, such as the rewards of a return.

    Raises:
        InvalidInput: There are no steps, a value is not finite, the ids are not one for each value,
            or `how` is neither.

    A success of one step and a failure of three, where the mean over steps would be 0.25:

    >>> trajectory_mean([1, 0, 0, 0], ["a", "b", "b", "b"])
    0.5
    >>> trajectory_mean([1, 0.5, 0.5, 2], ["a", "b", "b", "b"], how="sum")
    2.0
    """
    if how not in ("mean", "sum"):
        raise InvalidInput(f'how is "mean" or "sum"; got {how!r}')
    found = values_by_id(checked_values(values, "values"), trajectory, "trajectory ids").values()
    return fmean(map(fmean if how == "mean" else math.fsum, found))
