"""Scores of rankings, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_env.errors import InvalidInput
from steppo_env.metrics import RetrievalScore, retrieval_score


@pytest.mark.parametrize(
    ("ranked", "k", "precision", "recall", "f1"),
    [
        (["a", "x", "b", "y"], None, 0.5, 2 / 3, 4 / 7),
        (["a", "x", "b", "y"], 1, 1.0, 1 / 3, 0.5),
        (["a", "a", "x", "b"], 2, 0.5, 1 / 3, 0.4),  # the repeat takes no place
        (["a"], 10, 1.0, 1 / 3, 0.5),
        (["x"], None, 0.0, 0.0, 0.0),
        ([], None, 0.0, 0.0, 0.0),
        (["c", "b", "a"], 3, 1.0, 1.0, 1.0),
    ],
)
def test_retrieval_score(
    ranked: list[str], k: int | None, precision: float, recall: float, f1: float
) -> None:
    score = retrieval_score(ranked, {"a", "b", "c"}, k)
    assert score.precision == pytest.approx(precision)
    assert score.recall == pytest.approx(recall)
    assert score.f1 == pytest.approx(f1)


def test_a_repeated_gold_id_counts_once() -> None:
    assert retrieval_score(["a"], ["a", "a"]) == RetrievalScore(1.0, 1.0, 1.0)


def test_recall_without_gold_and_cuts_below_1_are_refused() -> None:
    with pytest.raises(InvalidInput, match="empty set"):
        retrieval_score(["a"], [])
    for k in (0, -1):
        with pytest.raises(InvalidInput, match="at least 1"):
            retrieval_score(["a", "b"], ["a"], k)


@given(
    st.lists(st.sampled_from("abcdef"), max_size=8),
    st.sets(st.sampled_from("abcdef"), min_size=1),
    st.integers(1, 9),
)
def test_recall_grows_with_k_and_f1_is_the_harmonic_mean(
    ranked: list[str], gold: set[str], k: int
) -> None:
    score, longer = retrieval_score(ranked, gold, k), retrieval_score(ranked, gold, k + 1)
    assert score.recall <= longer.recall
    total = score.precision + score.recall
    mean = 2 * score.precision * score.recall / total if total else 0.0
    assert score.f1 == pytest.approx(mean)
