"""Intervals that make no assumption about how values are distributed."""

import math
from collections.abc import Hashable, Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steppo_env.errors import InvalidInput
from steppo_env.metrics.samples import checked_values, values_by_id

__all__ = ["bootstrap_interval"]

_MAX_DRAWS = 1 << 20
"""Draws made at a time, so that memory does not grow with resamples times clusters."""


def bootstrap_interval(
    values: ArrayLike,
    *,
    clusters: Iterable[Hashable] | None = None,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of values.

    Resamples as many clusters as there are, with replacement and whole; takes the mean of all the
    values in them, sum of sums / sum of sizes; and returns the (1 - confidence) / 2 and
    (1 + confidence) / 2 quantiles of those means (Efron and Tibshirani 1993, chapter 13; for
    clusters Davison and Hinkley 1997, section 3.8). Samples of one task are alike, so that taken
    one by one they promise more than they hold: give the tasks as clusters.

    Below some 20 clusters the interval is narrower than its confidence says. Clusters with one and
    the same mean give a point; for a rate of 0 or 1 `wilson_interval` says more.

    Args:
        values: At least one finite number.
        clusters: The cluster of each value, such as its task; None makes each value its own.
        confidence: Between 0 and 1.
        num_resamples: At least 1.
        seed: At least 0. Equal values, clusters, resamples and seeds give equal intervals, whatever
            the order of the values and the names of the clusters.

    Raises:
        InvalidInput: An argument is not as above, or there are fewer than 2 clusters: one does not
            say how clusters differ.

    Of 4 draws from (1, 1, 0, 0), none or all are 1 with chance 1/16 each, which is cut off at 80%,
    and at most one is with chance 5/16, which is not. Of 2 draws from 2 clusters both are the same
    one with chance 1/4:

    >>> bootstrap_interval([1, 1, 0, 0], confidence=0.8)
    (0.25, 0.75)
    >>> bootstrap_interval([1, 1, 0, 0], clusters=["a", "a", "b", "b"], confidence=0.8)
    (0.0, 1.0)
    """
    vector = checked_values(values, "values")
    if not 0.0 < confidence < 1.0:
        raise InvalidInput(f"confidence is between 0 and 1; got {confidence}")
    if num_resamples < 1 or seed < 0:
        raise InvalidInput(
            f"num_resamples is at least 1 and seed at least 0; got {num_resamples} and {seed}"
        )
    totals, sizes = _clusters(vector, range(len(vector)) if clusters is None else clusters)
    if len(totals) < 2:
        raise InvalidInput("an interval needs at least 2 clusters (tasks) to resample; got 1")
    means = _resampled_means(totals, sizes, num_resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    # A mean of clusters is never outside of theirs, but for rounding.
    lowest, highest = (totals / sizes).min(), (totals / sizes).max()
    return float(np.clip(low, lowest, highest)), float(np.clip(high, lowest, highest))


def _clusters(
    values: NDArray[np.float64], ids: Iterable[Hashable]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the sum and the size of each cluster, in an order that is theirs alone."""
    found = values_by_id(values, ids, "clusters").values()
    totals = np.array([math.fsum(cluster) for cluster in found])
    sizes = np.array([len(cluster) for cluster in found])
    order = np.lexsort((totals, sizes))
    return totals[order], sizes[order]


def _resampled_means(
    totals: NDArray[np.float64],
    sizes: NDArray[np.int64],
    num_resamples: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    num_clusters = len(totals)
    num_rows = max(1, _MAX_DRAWS // num_clusters)
    means = np.empty(num_resamples)
    for start in range(0, num_resamples, num_rows):
        part = means[start : start + num_rows]
        drawn = rng.integers(num_clusters, size=(len(part), num_clusters))
        part[:] = totals[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means
