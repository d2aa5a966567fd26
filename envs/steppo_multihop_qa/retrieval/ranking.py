"""The best of many scores, in an order that never depends on how they were found."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_places"]


def best_places(
    places: NDArray[np.integer], scores: NDArray[np.floating], k: int
) -> tuple[int, ...]:
    """Return the places of the `k` highest scores, best first; equal scores in order of place.

    Args:
        places: Ascending, shape (n,).
        scores: Of the same shape, without NaN.

    >>> best_places(np.array([2, 5, 7]), np.array([1.0, 3.0, 1.0]), 2)
    (5, 2)
    """
    if len(places) > k:
        cut = np.partition(scores, len(scores) - k)[len(scores) - k]
        places, scores = places[scores >= cut], scores[scores >= cut]
    order = np.argsort(-scores, kind="stable")[:k]
    return tuple(places[order].tolist())
