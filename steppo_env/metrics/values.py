"""How much of the returns a critic foresees."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steppo_env.errors import InvalidInput
from steppo_env.metrics.samples import checked_values

__all__ = ["explained_variance", "explained_variance_by_step"]

_ROUNDING = 1e-12
"""Returns that spread less than this, relative to their size, differ by rounding only."""


def explained_variance(value: ArrayLike, return_: ArrayLike) -> float | None:
    """Return the share of the returns' variance that the values explain.

    1 - Var(return_ - value) / Var(return_): 1 for a perfect critic, 0 for a constant one, below 0
    for one that is worse than a constant. A constant offset of the values does not show.

    Returns:
        A number of at most 1, never NaN, -inf where it would overflow; None where all returns are
        equal but for rounding.

    Raises:
        InvalidInput: There are no steps, more values than returns or fewer, or one is not finite.

    The returns' variance is (9 + 1 + 1 + 9) / 4 = 5, that of the errors 1, -1, 1, -1 is 1:

    >>> explained_variance([-1, 3, 3, 7], [0, 2, 4, 6])
    0.8
    """
    return _explained(*_pairs(value, return_))


def explained_variance_by_step(
    value: ArrayLike, return_: ArrayLike, step: ArrayLike
) -> dict[int, tuple[int, float | None]]:
    """Return the number of steps and the explained variance at each step index, in order.

    Over all steps together, a critic that only knows how far the episode is looks good wherever
    returns change with the step index; among steps of one index it explains nothing.

    Args:
        value: What the critic said of each step.
        return_: What each step's return was.
        step: Each step's index in its episode: an integer of at least 0.

    Raises:
        InvalidInput: As for `explained_variance`, or a step index is not an integer of at least 0.

    At index 0 the returns 0 and 2 have variance 1 and the errors 0 and 1 have 0.25; at index 1 the
    returns are equal:

    >>> explained_variance_by_step([0, 2, 1, 1], [0, 2, 2, 2], [0, 1, 0, 1])
    {0: (2, 0.75), 1: (2, None)}
    """
    values, returns = _pairs(value, return_)
    indices = np.asarray(step)
    if indices.shape != values.shape:
        raise InvalidInput(
            f"step holds one index for each value; got shape {indices.shape} for {len(values)} values"
        )
    if indices.dtype.kind not in "iu" or indices.min() < 0:
        raise InvalidInput(f"step indices are integers of at least 0; got {indices.tolist()[:8]}")
    order = np.argsort(indices, kind="stable")
    found, starts = np.unique(indices[order], return_index=True)
    parts = np.split(order, starts[1:])
    return {
        int(index): (len(part), _explained(values[part], returns[part]))
        for index, part in zip(found, parts)
    }


def _pairs(value: ArrayLike, return_: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values, returns = checked_values(value, "values"), checked_values(return_, "returns")
    if len(values) != len(returns):
        raise InvalidInput(
            f"values and returns are one for each step; got {len(values)} and {len(returns)}"
        )
    return values, returns


def _explained(values: NDArray[np.float64], returns: NDArray[np.float64]) -> float | None:
    spread, shape = _spread_and_shape(returns)
    if spread <= _ROUNDING * float(np.abs(returns).max()):
        return None
    error_spread, error_shape = _spread_and_shape(returns - values)
    ratio = (error_spread / spread) * (error_shape / shape)
    return 1.0 - ratio * ratio


def _spread_and_shape(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return two factors of the standard deviation, so that no square vanishes or overflows."""
    spread = float(np.ptp(values))
    return spread, float(np.std((values - values.min()) / spread)) if spread else 0.0
