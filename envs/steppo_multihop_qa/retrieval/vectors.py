"""Exact nearest neighbours by inner product, the same however queries are batched."""

import numpy as np
from numpy.typing import NDArray

from steppo_multihop_qa.retrieval.ranking import best_places

__all__ = ["nearest"]

BLOCK = 1 << 16
"""Vectors whose products with the queries are held at a time."""
RESCORED = 1 << 12
"""Vectors that are widened to double precision at a time."""
UNIT_ROUNDOFF = 2.0**-24
DECIMALS = 12
"""Scores are compared to so many decimals, beyond which double precision is noise."""


def nearest(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> list[tuple[int, ...]]:
    """Return the places of the `k` vectors nearest to each query, best first, ties by place.

    A matrix product rounds differently for one query and for several, so it only chooses the
    candidates: all whose score in single precision is within its error of the k-th. The error of an
    inner product of unit vectors is at most d * u, with u the unit roundoff (Higham, Accuracy and
    Stability of Numerical Algorithms, 2002, equation 3.5), and two scores may err apart; twice that
    is kept. The candidates are ranked by their scores in double precision.

    Args:
        vectors: Unit vectors, shape (n, d); may be mapped from a file.
        queries: Unit vectors, shape (b, d).
    """
    margin = 4 * vectors.shape[1] * UNIT_ROUNDOFF
    places: list[list[NDArray[np.int64]]] = [[] for _ in queries]
    rough: list[list[NDArray[np.float32]]] = [[] for _ in queries]
    for start in range(0, len(vectors), BLOCK):
        # In this order, because with few queries it takes two thirds of the time of the other.
        products = np.ascontiguousarray((vectors[start : start + BLOCK] @ queries.T).T)
        for number, scores in enumerate(products):
            kept = np.flatnonzero(scores >= _kth(scores, k) - margin)
            places[number].append(kept + start)
            rough[number].append(scores[kept])
    found: list[tuple[int, ...]] = []
    for number, query in enumerate(queries):
        candidates, scores = np.concatenate(places[number]), np.concatenate(rough[number])
        candidates = candidates[scores >= _kth(scores, k) - margin]
        found.append(best_places(candidates, _scores(vectors, candidates, query), k))
    return found


def _kth(scores: NDArray[np.float32], k: int) -> float:
    """Return the k-th highest score, or the lowest of fewer."""
    place = max(0, len(scores) - k)
    return float(np.partition(scores, place)[place])


def _scores(
    vectors: NDArray[np.float32], places: NDArray[np.int64], query: NDArray[np.float32]
) -> NDArray[np.float64]:
    wide = query.astype(np.float64)
    parts = [
        (vectors[places[start : start + RESCORED]] * wide).sum(axis=1)
        for start in range(0, len(places), RESCORED)
    ]
    return np.concatenate(parts).round(DECIMALS)
