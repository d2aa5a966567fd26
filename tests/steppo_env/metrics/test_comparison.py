"""Paired comparisons by hand and against every way to flip the signs."""

import itertools
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_env.errors import InvalidInput
from steppo_env.metrics import PairedComparison, bootstrap_interval, compare_paired
from steppo_env.metrics import comparison as module


def comparison(*differences: float, seed: int = 0, num_resamples: int = 100) -> PairedComparison:
    """Compare one sample of each task with 0."""
    return compare_paired(
        {f"t{number}": [difference] for number, difference in enumerate(differences)},
        {f"t{number}": [0.0] for number in range(len(differences))},
        seed=seed,
        num_resamples=num_resamples,
    )


def share_as_extreme(differences: list[int]) -> float:
    """Return the share of all 2^n sign vectors, ties included, whose sum is as far from 0."""
    observed = abs(sum(differences))
    signs = list(itertools.product((1, -1), repeat=len(differences)))
    extreme = [abs(sum(s * d for s, d in zip(each, differences))) >= observed for each in signs]
    return float(Fraction(sum(extreme), len(signs)))


def test_every_field_by_hand() -> None:
    found = compare_paired(
        # Means 1, 0.5, 0, 0.25 against 0, 0.5, 1, 0: differences 1, 0, -1, 0.25.
        {"a": [1, 1], "b": [0, 1], "c": [0], "d": [1, 0, 0, 0]},
        {"a": [0], "b": [1, 0, 0, 1], "c": [1, 1], "d": [0]},
        num_resamples=500,
        seed=3,
    )
    assert found == PairedComparison(
        num_tasks=4,
        num_unpaired=0,
        mean_difference=0.0625,
        interval=bootstrap_interval([1, 0, -1, 0.25], num_resamples=500, seed=3),
        confidence=0.95,
        # |+-1 +- 1 +- 0.25| >= 0.25 always.
        p_value=1.0,
        wins=2,
        losses=1,
        ties=1,
    )


@pytest.mark.parametrize(
    ("differences", "p_value"),
    [
        ([1, 1, 1], 2 / 8),
        ([1, 1, 1, 1, 1, 1], 2 / 64),
        ([-1, -1, -1, -1, -1, -1], 2 / 64),
        # At most one of six differs from the others: 2 * (1 + 6) of 64.
        ([1, 1, 1, -1, 1, 1], 14 / 64),
        # 3 + 2 - 1 = 4 is reached by +++, ++- and their mirror images.
        ([3, 2, -1], 4 / 8),
        ([0, 0, 5], 1.0),
        ([0, 0], 1.0),
        ([2, -2], 1.0),
    ],
)
def test_p_values_by_hand(differences: list[float], p_value: float) -> None:
    assert comparison(*differences).p_value == p_value


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=9))
def test_the_p_value_is_the_share_of_sign_flips_as_extreme(differences: list[int]) -> None:
    # Tenths, which binary fractions do not hold: rounding must not part what is equal.
    assert comparison(*(d / 10 for d in differences)).p_value == share_as_extreme(differences)


def test_under_the_null_a_p_value_below_alpha_is_no_likelier_than_alpha() -> None:
    """Exact: over the 2^6 equally likely signs of 6 differences, for every alpha that occurs."""
    sizes = [0.1, 0.3, 0.35, 0.9, 1.4, 2.0]
    found = [
        comparison(*(s * size for s, size in zip(signs, sizes)), num_resamples=1).p_value
        for signs in itertools.product((1, -1), repeat=len(sizes))
    ]
    for alpha in set(found):
        assert sum(p <= alpha for p in found) <= alpha * len(found)


def test_fourteen_tasks_are_enumerated_and_ties_do_not_count_among_them() -> None:
    # With 1 resample the random test could say 0.5 or 1 only.
    assert comparison(*[1.0] * 14, num_resamples=1).p_value == 2 / 2**14
    assert comparison(*[1.0] * 14, *[0.0] * 40, num_resamples=1).p_value == 2 / 2**14
    assert comparison(*[1.0] * 15, num_resamples=1).p_value in (0.5, 1.0)


def test_a_random_test_never_says_zero() -> None:
    # 40 wins in a row: 2 of 2^40 flips are as extreme, and none of 99 is.
    assert comparison(*[1.0] * 40, num_resamples=99).p_value == 1 / 100


def test_the_random_test_is_near_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = [2, -1, 3, 1, 0, 4, -2, 5, 1, 1, -3, 2]
    exact = share_as_extreme(differences)
    assert 0.01 < exact < 0.2
    monkeypatch.setattr(module, "_MAX_ENUMERATED", 0)
    monkeypatch.setattr(module, "_MAX_SIGNS", 1000)
    for seed in range(3):
        found = comparison(*differences, seed=seed, num_resamples=20_000).p_value
        assert found == pytest.approx(exact, abs=5 * math.sqrt(exact / 20_000))


def test_the_random_test_knows_neither_order_nor_names_nor_sides() -> None:
    """Sets of names are ordered by hashes, which differ from process to process."""
    scores = [math.sin(number) + 0.2 for number in range(40)]
    zeros = [0.0] * len(scores)
    found = set()
    for prefix in "abcdef":
        names = [f"{prefix}{number}" for number in range(len(scores))]
        for ours, theirs in ((scores, zeros), (scores[::-1], zeros), (zeros, scores)):
            result = compare_paired(
                {name: [score] for name, score in zip(names, ours)},
                {name: [score] for name, score in zip(names, theirs)},
                num_resamples=300,
            )
            found.add(result.p_value)
    assert len(found) == 1
    assert 0.0 < found.pop() < 0.5


SCORES = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.tuples(
        st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=1, max_size=4),
        st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=1, max_size=4),
    ),
    min_size=2,
)


@given(SCORES, st.randoms(use_true_random=False))
def test_neither_order_of_tasks_nor_of_samples_nor_names_matter(
    scores: dict[str, tuple[list[float], list[float]]], shuffler: random.Random
) -> None:
    ours = {name: a for name, (a, _) in scores.items()}
    theirs = {name: b for name, (_, b) in scores.items()}
    found = compare_paired(ours, theirs, num_resamples=50)
    names = list(scores)
    shuffler.shuffle(names)
    again = compare_paired(
        {f"{name}2": ours[name][::-1] for name in names},
        {f"{name}2": sorted(b) for name, b in theirs.items()},
        num_resamples=50,
    )
    assert found == again


@given(SCORES)
def test_changing_sides_changes_the_sign_only(
    scores: dict[str, tuple[list[float], list[float]]],
) -> None:
    ours = {name: a for name, (a, _) in scores.items()}
    theirs = {name: b for name, (_, b) in scores.items()}
    found, mirrored = (
        compare_paired(*sides, num_resamples=50) for sides in ((ours, theirs), (theirs, ours))
    )
    assert mirrored.mean_difference == -found.mean_difference
    assert mirrored.p_value == found.p_value
    assert (mirrored.wins, mirrored.losses, mirrored.ties) == (
        found.losses,
        found.wins,
        found.ties,
    )
    assert found.wins + found.losses + found.ties == found.num_tasks
    assert -1.0 <= found.interval[0] <= found.interval[1] <= 1.0


def test_means_that_differ_by_rounding_only_are_ties() -> None:
    assert sum([0.1] * 3) / 3 != 0.1
    found = compare_paired({"a": [0.1, 0.1, 0.1], "b": [0.1, 0.2, -0.3]}, {"a": [0.1], "b": [0.0]})
    assert (found.ties, found.mean_difference, found.p_value) == (2, 0.0, 1.0)


def test_a_task_counts_once_however_often_it_was_sampled() -> None:
    found = compare_paired({"a": [1] * 98, "b": [0], "c": [0]}, {"a": [0], "b": [1], "c": [1]})
    assert found.mean_difference == pytest.approx(-1 / 3)
    assert (found.wins, found.losses) == (1, 2)


def test_more_confidence_makes_the_interval_wider() -> None:
    ours = {str(number): [math.sin(number)] for number in range(20)}
    theirs = {str(number): [0.0] for number in range(20)}
    low, high = compare_paired(ours, theirs, confidence=0.5).interval
    wide = compare_paired(ours, theirs, confidence=0.99)
    assert wide.confidence == 0.99
    assert wide.interval[0] < low < high < wide.interval[1]


def test_tasks_that_only_one_has_are_refused_and_on_request_counted() -> None:
    ours = {"a": [1.0], "b": [0.0], "c": [1.0], **{f"x{n}": [1.0] for n in range(4)}}
    theirs = {"a": [0.0], "b": [0.0], "c": [0.0], "y": [1.0]}
    with pytest.raises(InvalidInput) as refusal:
        compare_paired(ours, theirs)
    assert "only ours: 4 ('x0', 'x1', 'x2', ...); only theirs: 1 ('y')" in str(refusal.value)
    with pytest.raises(InvalidInput, match="only ours: none; only theirs: 1"):
        compare_paired({"a": [1.0], "b": [0.0], "c": [1.0]}, theirs)

    found = compare_paired(ours, theirs, allow_partial=True)
    assert (found.num_tasks, found.num_unpaired) == (3, 5)
    assert found.mean_difference == pytest.approx(2 / 3)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 2 tasks that both have; got 1"):
        compare_paired({"a": [1.0]}, {"a": [0.0]})
    with pytest.raises(InvalidInput, match="at least 2 tasks that both have; got 0"):
        compare_paired({"a": [1.0]}, {"b": [0.0]}, allow_partial=True)
    with pytest.raises(InvalidInput, match="our scores of task 'b' are at least one number"):
        compare_paired({"a": [1.0], "b": []}, {"a": [0.0], "b": [0.0]})
    with pytest.raises(InvalidInput, match="their scores of task 'b' are finite"):
        compare_paired({"a": [1.0], "b": [0.0]}, {"a": [0.0], "b": [math.nan]})
    with pytest.raises(InvalidInput, match="confidence"):
        compare_paired({"a": [1.0], "b": [0.0]}, {"a": [0.0], "b": [0.0]}, confidence=95)
