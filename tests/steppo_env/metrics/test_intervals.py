"""Bootstrap intervals against every resample there is, and against known distributions."""

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_env.errors import InvalidInput
from steppo_env.metrics import bootstrap_interval
from steppo_env.metrics import intervals as module

NUMBERS = st.floats(-100, 100)


def exact_quantiles(clusters: Sequence[Sequence[int]], confidence: Fraction) -> tuple[float, float]:
    """Return the quantiles of the mean over all n^n resamples of n clusters."""
    chances: Counter[Fraction] = Counter()
    for drawn in itertools.product(clusters, repeat=len(clusters)):
        values = [value for cluster in drawn for value in cluster]
        chances[Fraction(sum(values), len(values))] += 1
    total = len(clusters) ** len(clusters)
    bounds = []
    for level in ((1 - confidence) / 2, (1 + confidence) / 2):
        below = 0
        for mean in sorted(chances):
            below += chances[mean]
            if below >= level * total:
                bounds.append(float(mean))
                break
    low, high = bounds
    return low, high


@pytest.mark.parametrize("confidence", [Fraction(3, 5), Fraction(4, 5), Fraction(19, 20)])
@pytest.mark.parametrize(
    "clusters",
    [
        [[0], [0], [1], [1]],
        [[0], [1], [5]],
        [[0], [2], [3], [50], [-7]],
        [[1, 1], [0, 0]],
        [[1], [0, 0, 0], [0, 1]],
        [[0, 4, 4], [9], [2, 2], [7, 0, 0, 1]],
    ],
)
def test_the_bounds_are_the_quantiles_of_all_resamples(
    clusters: list[list[int]], confidence: Fraction
) -> None:
    values = [value for cluster in clusters for value in cluster]
    ids = [number for number, cluster in enumerate(clusters) for _ in cluster]
    found = bootstrap_interval(
        values, clusters=ids, confidence=float(confidence), num_resamples=40_000
    )
    assert found == pytest.approx(exact_quantiles(clusters, confidence))


def test_bounds_by_hand() -> None:
    # Of 3^3 = 27 resamples of (0, 3, 6), the mean is 0 in 1, 1 in 3, 2 in 6, 3 in 7, ... At 80% the
    # bounds are at 2.7 and 24.3 of 27: the means 1 and 5, for 1 < 2.7 < 1 + 3.
    assert bootstrap_interval([0, 3, 6], confidence=0.8) == (1.0, 5.0)
    # At 95% they are at 0.675 and 26.325 of 27, before the first and after the last but one.
    assert bootstrap_interval([0, 3, 6]) == (0.0, 6.0)


def test_copies_of_a_value_say_nothing_new_where_they_are_one_cluster() -> None:
    values = [0.0, 1.0, 3.0, 7.0, 8.0]
    copies = [value for value in values for _ in range(20)]
    ids = [f"task {number}" for number in range(5) for _ in range(20)]

    single = bootstrap_interval(values)
    assert bootstrap_interval(copies, clusters=ids) == pytest.approx(single)
    low, high = bootstrap_interval(copies)
    assert high - low < (single[1] - single[0]) / 3


@given(st.lists(st.tuples(NUMBERS, st.sampled_from("abcd")), min_size=2, max_size=12), st.data())
def test_neither_order_nor_names_of_clusters_matter(
    pairs: list[tuple[float, str]], data: st.DataObject
) -> None:
    pairs = [(0.5, "x"), *pairs]
    shuffled = data.draw(st.permutations(pairs))
    names: dict[str, Hashable] = {"a": 3, "b": ("b", 1), "c": "z", "d": None, "x": 2.5}
    found = bootstrap_interval(
        [value for value, _ in pairs], clusters=[name for _, name in pairs], num_resamples=50
    )
    again = bootstrap_interval(
        [value for value, _ in shuffled],
        clusters=[names[name] for _, name in shuffled],
        num_resamples=50,
    )
    assert found == again


@given(
    st.lists(NUMBERS, min_size=2, max_size=10),
    st.floats(0.01, 0.99),
    st.integers(0, 2**40),
    st.integers(1, 40),
)
def test_bounds_are_ordered_and_within_the_values(
    values: list[float], confidence: float, seed: int, num_resamples: int
) -> None:
    low, high = bootstrap_interval(
        values, confidence=confidence, num_resamples=num_resamples, seed=seed
    )
    assert min(values) <= low <= high <= max(values)
    wider = bootstrap_interval(
        values, confidence=(1 + confidence) / 2, num_resamples=num_resamples, seed=seed
    )
    assert wider[0] <= low <= high <= wider[1]


@given(st.lists(NUMBERS, min_size=2, max_size=10), st.floats(0.1, 10), NUMBERS)
def test_the_interval_moves_and_stretches_with_the_values(
    values: list[float], factor: float, offset: float
) -> None:
    low, high = bootstrap_interval(values, num_resamples=100)
    moved = bootstrap_interval([factor * v + offset for v in values], num_resamples=100)
    assert moved == pytest.approx((factor * low + offset, factor * high + offset), abs=1e-9)


def test_values_that_are_all_equal_give_that_point() -> None:
    assert bootstrap_interval([0.1] * 7) == (0.1, 0.1)
    assert bootstrap_interval([1, 1, 1], clusters=["a", "b", "b"]) == (1.0, 1.0)


def test_equal_seeds_give_equal_intervals_and_others_nearly_equal_ones() -> None:
    values = [math.sin(number) for number in range(30)]
    found = bootstrap_interval(values, seed=1)
    assert found == bootstrap_interval(values, seed=1)
    other = bootstrap_interval(values, seed=2)
    assert found != other
    assert found == pytest.approx(other, abs=0.03)


def test_parts_of_resamples_are_all_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """With memory for 3 resamples at a time, 2000 take 667 parts of which the last is short."""
    monkeypatch.setattr(module, "_MAX_DRAWS", 3 * 4 + 1)
    assert bootstrap_interval([10, 10, 11, 11], confidence=0.8) == (10.25, 10.75)
    assert bootstrap_interval([10, 10, 11, 11], confidence=0.999) == (10.0, 11.0)
    monkeypatch.setattr(module, "_MAX_DRAWS", 1)
    assert bootstrap_interval([10, 10, 11, 11], confidence=0.8) == (10.25, 10.75)


def test_it_covers_the_mean_of_a_skewed_distribution_about_as_often_as_it_says() -> None:
    """Of 400 intervals at 90% from 60 exponential values, 360 - 6 +- 4 * 6 hold the mean.

    The standard deviation of the count is sqrt(400 * 0.9 * 0.1) = 6; skewness costs some 1.5%.
    """
    rng = np.random.default_rng(5)
    held = 0
    for seed in range(400):
        low, high = bootstrap_interval(
            rng.exponential(2.0, 60), confidence=0.9, num_resamples=400, seed=seed
        )
        held += low <= 2.0 <= high
    assert 330 <= held <= 378


def test_only_with_tasks_as_clusters_does_it_cover_the_mean_over_tasks() -> None:
    """Samples of a task share most of their luck: 40 tasks of 8 samples are nearer to 40 than 320."""
    rng = np.random.default_rng(6)
    tasks = np.repeat(np.arange(40), 8)
    held = Counter[bool]()
    for seed in range(200):
        values = np.repeat(rng.normal(size=40), 8) + 0.3 * rng.normal(size=320)
        for is_clustered in (True, False):
            low, high = bootstrap_interval(
                values,
                clusters=tasks.tolist() if is_clustered else None,
                confidence=0.9,
                num_resamples=300,
                seed=seed,
            )
            held[is_clustered] += low <= 0.0 <= high
    assert 164 <= held[True] <= 194
    assert held[False] < 120


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": []}, "values are at least one number"),
        ({"values": [1.0, math.nan]}, "got nan at index 1"),
        ({"values": [1.0]}, "at least 2 clusters"),
        ({"clusters": ["a", "a"]}, "at least 2 clusters"),
        ({"clusters": ["a"]}, "clusters are one for each value; got 1 for 2"),
        ({"confidence": 0.0}, "confidence is between 0 and 1; got 0.0"),
        ({"confidence": 1.0}, "confidence is between 0 and 1; got 1.0"),
        ({"confidence": math.nan}, "confidence is between 0 and 1; got nan"),
        ({"num_resamples": 0}, "num_resamples is at least 1"),
        ({"seed": -1}, "seed at least 0"),
    ],
)
def test_what_gives_no_interval_is_refused(changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"values": [1.0, 2.0], **changes}
    with pytest.raises(InvalidInput, match=message):
        bootstrap_interval(**arguments)  # type: ignore[arg-type]
