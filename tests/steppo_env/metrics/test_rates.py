"""Success rates by hand and by enumeration."""

import math
from itertools import combinations
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_env.errors import InvalidInput
from steppo_env.metrics import pass_at_k, pass_hat_k, wilson_interval


def test_pass_at_k_is_the_share_of_draws_with_a_success() -> None:
    for num_samples in range(1, 8):
        for num_successes in range(num_samples + 1):
            outcomes = [1] * num_successes + [0] * (num_samples - num_successes)
            for k in range(1, num_samples + 1):
                draws = list(combinations(outcomes, k))
                expected = sum(any(draw) for draw in draws) / len(draws)
                assert pass_at_k(num_samples, num_successes, k) == pytest.approx(expected)


def test_pass_at_k_is_unbiased() -> None:
    """Its mean over all samples of 4 from {success 1/2} is the true 1 - (1/2)^2 for k = 2."""
    chances = {count: math.comb(4, count) / 16 for count in range(5)}
    mean = sum(chance * pass_at_k(4, count, 2) for count, chance in chances.items())
    assert mean == pytest.approx(0.75)


@given(st.integers(1, 300), st.data())
def test_pass_at_k_grows_with_k_and_with_successes(num_samples: int, data: st.DataObject) -> None:
    num_successes = data.draw(st.integers(0, num_samples))
    k = data.draw(st.integers(1, num_samples))
    value = pass_at_k(num_samples, num_successes, k)
    assert 0.0 <= value <= 1.0
    assert pass_at_k(num_samples, num_successes, 1) == pytest.approx(num_successes / num_samples)
    assert pass_at_k(num_samples, num_successes, num_samples) == (num_successes > 0)
    if k < num_samples:
        assert pass_at_k(num_samples, num_successes, k + 1) >= value
    if num_successes < num_samples:
        assert pass_at_k(num_samples, num_successes + 1, k) >= value


def test_pass_at_k_of_large_samples_does_not_overflow() -> None:
    # 1 - C(9000, 2) / C(10000, 2) = 1 - (9000 * 8999) / (10000 * 9999)
    assert pass_at_k(10_000, 1_000, 2) == pytest.approx(1 - 80_991_000 / 99_990_000)
    assert pass_at_k(10_000, 1_000, 5_000) == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [(4, 5, 1), (4, -1, 1), (4, 1, 0), (4, 1, 5), (0, 0, 1)])
def test_pass_at_k_refuses_what_is_no_sample(bad: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInput, match="pass@k needs"):
        pass_at_k(*bad)


@pytest.mark.parametrize(
    ("num_successes", "num_trials", "low", "high"),
    [
        # z = 1.959964, z^2 = 3.841459
        (8, 10, 0.490162, 0.943318),
        (0, 10, 0.0, 3.841459 / 13.841459),
        (10, 10, 10 / 13.841459, 1.0),
        (1, 2, 0.094531, 0.905469),
        (50, 100, 0.403832, 0.596168),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval(num_successes: int, num_trials: int, low: float, high: float) -> None:
    assert wilson_interval(num_successes, num_trials) == pytest.approx((low, high), abs=1e-6)


@given(st.integers(1, 10_000), st.data(), st.floats(0.01, 0.999))
def test_the_bounds_solve_wilsons_equation(
    num_trials: int, data: st.DataObject, confidence: float
) -> None:
    """A bound p is where the rate is z standard errors away: (rate - p)^2 = z^2 p (1 - p) / n."""
    num_successes = data.draw(st.integers(0, num_trials))
    low, high = wilson_interval(num_successes, num_trials, confidence)
    rate = num_successes / num_trials
    assert 0.0 <= low <= rate <= high <= 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    for bound in (low, high):
        assert (rate - bound) ** 2 == pytest.approx(
            z * z * bound * (1 - bound) / num_trials, rel=1e-6, abs=1e-12
        )
    mirrored = wilson_interval(num_trials - num_successes, num_trials, confidence)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize("bad", [(3, 2, 0.9), (-1, 2, 0.9), (1, 2, 0.0), (1, 2, 1.0)])
def test_wilson_interval_refuses_what_is_no_rate(bad: tuple[int, int, float]) -> None:
    with pytest.raises(InvalidInput, match="needs 0 <= num_successes"):
        wilson_interval(*bad)


@pytest.mark.parametrize(
    ("num_samples", "num_successes", "k", "expected"),
    [
        (4, 3, 2, 3 / 6),
        (4, 2, 2, 1 / 6),
        (4, 1, 2, 0.0),
        (8, 6, 4, 15 / 70),
        (5, 5, 5, 1.0),
        (5, 4, 5, 0.0),
    ],
)
def test_pass_hat_k_by_hand(num_samples: int, num_successes: int, k: int, expected: float) -> None:
    assert pass_hat_k(num_samples, num_successes, k) == pytest.approx(expected)


def test_pass_hat_k_is_the_share_of_draws_of_successes_only() -> None:
    for num_samples in range(1, 8):
        for num_successes in range(num_samples + 1):
            outcomes = [1] * num_successes + [0] * (num_samples - num_successes)
            for k in range(1, num_samples + 1):
                draws = list(combinations(outcomes, k))
                expected = sum(all(draw) for draw in draws) / len(draws)
                assert pass_hat_k(num_samples, num_successes, k) == pytest.approx(expected)


def test_pass_hat_k_is_unbiased() -> None:
    """Its mean over all samples of 4 from {success 1/2} is the true (1/2)^2 for k = 2."""
    chances = {count: math.comb(4, count) / 16 for count in range(5)}
    mean = sum(chance * pass_hat_k(4, count, 2) for count, chance in chances.items())
    assert mean == pytest.approx(0.25)


@given(st.integers(1, 300), st.data())
def test_all_succeed_is_never_likelier_than_one_and_falls_with_k(
    num_samples: int, data: st.DataObject
) -> None:
    num_successes = data.draw(st.integers(0, num_samples))
    k = data.draw(st.integers(1, num_samples))
    value = pass_hat_k(num_samples, num_successes, k)
    assert 0.0 <= value <= pass_at_k(num_samples, num_successes, k) + 1e-12
    # All succeed exactly when none of the failures, seen as successes, is drawn.
    assert value == pytest.approx(1 - pass_at_k(num_samples, num_samples - num_successes, k))
    if k < num_samples:
        assert pass_hat_k(num_samples, num_successes, k + 1) <= value


@pytest.mark.parametrize("bad", [(4, 5, 1), (4, -1, 1), (4, 1, 0), (4, 1, 5), (0, 0, 1)])
def test_pass_hat_k_refuses_what_is_no_sample(bad: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInput, match=r"pass\^k needs"):
        pass_hat_k(*bad)
