"""Exact nearest neighbours: brute force, ties by place, and no trace of how queries were batched."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from steppo_multihop_qa.retrieval import vectors as module
from steppo_multihop_qa.retrieval.vectors import nearest

Rows = NDArray[np.floating]


def unit(rows: Rows) -> NDArray[np.float32]:
    wide = rows.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), dtype=np.float32)


def brute_force(vectors: Rows, query: Rows, k: int) -> tuple[int, ...]:
    scores = [sum(float(a) * float(b) for a, b in zip(row, query)) for row in vectors]
    return tuple(sorted(range(len(scores)), key=lambda place: (-round(scores[place], 12), place)))[
        :k
    ]


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(1, 12),
    st.integers(1, 9),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_it_is_brute_force(n: int, b: int, k: int, block: int, ties: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Few different values make many equal scores.

    def draw(*shape: int) -> Rows:
        return rng.integers(1, 3, shape).astype(float) if ties else rng.normal(size=shape)

    vectors, queries = unit(draw(n, 4)), unit(draw(b, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        patch.setattr(module, "RESCORED", 3)
        found = nearest(vectors, queries, k)
    assert found == [brute_force(vectors, query, k) for query in queries]


def test_near_ties_are_ordered_alike_alone_and_in_any_batch() -> None:
    rng = np.random.default_rng(5)
    # All within a few units of the last place of one another, in a dimension where sums round.
    base = rng.normal(size=(1, 768))
    vectors = unit(np.repeat(base, 300, axis=0) + 1e-7 * rng.normal(size=(300, 768)))
    queries = unit(rng.normal(size=(33, 768)))
    together = nearest(vectors, queries, 10)
    alone = [nearest(vectors, queries[i : i + 1], 10)[0] for i in range(33)]
    assert together == alone
    exact = vectors.astype(np.float64) @ queries.astype(np.float64).T
    for number, places in enumerate(together):
        assert sorted(exact[list(places), number]) == pytest.approx(
            sorted(exact[:, number])[-10:], abs=2e-12
        )


def test_equal_vectors_come_in_order_of_place() -> None:
    vectors = np.repeat(unit(np.array([[3.0, 1.0, 2.0]])), 9, axis=0)
    assert nearest(vectors, vectors[:1], 4) == [(0, 1, 2, 3)]
