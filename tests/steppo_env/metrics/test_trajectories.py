"""Means over trajectories, by hand."""

import math
import random
from statistics import correlation, fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_env.errors import InvalidInput
from steppo_env.metrics import trajectory_mean

STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.floats(-10, 10)), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("values", "trajectory", "mean", "total"),
    [
        ([1, 0, 0, 0], "abbb", 1 / 2, 1 / 2),
        ([1, 2, 3, 4], "abab", (2 + 3) / 2, (4 + 6) / 2),
        ([2, 4, 9], "aab", (3 + 9) / 2, (6 + 9) / 2),
        ([7], "a", 7.0, 7.0),
        ([True, False, True, True], "aabc", (0.5 + 1 + 1) / 3, (1 + 1 + 1) / 3),
        ([0, 0, 0, 6], "aaaa", 1.5, 6.0),
    ],
)
def test_means_by_hand(values: list[float], trajectory: str, mean: float, total: float) -> None:
    assert trajectory_mean(values, trajectory) == pytest.approx(mean)
    assert trajectory_mean(values, trajectory, how="mean") == pytest.approx(mean)
    assert trajectory_mean(values, trajectory, how="sum") == pytest.approx(total)


def test_success_of_short_episodes_is_0_45_and_not_the_0_28_that_steps_say() -> None:
    """Weighted by steps, a logged 0.28 stood for a true 0.4487; length went with failure at -0.94.

    35 of 78 episodes succeed, with 43 +- 9 steps; the others fail with 90 +- 8. Each step carries the
    reward of its episode: 35 / 78 = 0.4487, and 35 * 43 / (35 * 43 + 43 * 90) = 1505 / 5375 = 0.28.
    """
    lengths = [34, 52] * 17 + [43] + [82, 98] * 21 + [90]
    rewards = [1.0] * 35 + [0.0] * 43
    trajectory = [number for number, length in enumerate(lengths) for _ in range(length)]
    values = [rewards[number] for number in trajectory]

    assert fmean(values) == pytest.approx(0.28, abs=1e-12)
    assert correlation(rewards, lengths) == pytest.approx(-0.94, abs=0.005)
    assert trajectory_mean(values, trajectory) == pytest.approx(0.4487, abs=5e-5)


@given(STEPS, st.randoms(use_true_random=False), st.sampled_from(["mean", "sum"]))
def test_order_of_steps_and_names_of_trajectories_do_not_matter(
    steps: list[tuple[str, float]], shuffler: random.Random, how: str
) -> None:
    shuffled = list(steps)
    shuffler.shuffle(shuffled)
    found, again = (
        trajectory_mean(
            [value for _, value in each],
            [rename(name) for name, _ in each],
            how="mean" if how == "mean" else "sum",
        )
        for each, rename in ((steps, str), (shuffled, ord))
    )
    assert found == pytest.approx(again)


@given(STEPS)
def test_repeating_every_step_of_one_trajectory_changes_no_mean(
    steps: list[tuple[str, float]],
) -> None:
    longer = steps + [step for step in steps if step[0] == "a"] * 3
    before, after = (
        trajectory_mean([value for _, value in each], [name for name, _ in each])
        for each in (steps, longer)
    )
    assert after == pytest.approx(before)
    values = [value for _, value in steps]
    assert min(values) - 1e-9 <= before <= max(values) + 1e-9


def test_what_has_no_mean_is_refused() -> None:
    with pytest.raises(InvalidInput, match="values are at least one number"):
        trajectory_mean([], [])
    with pytest.raises(InvalidInput, match="got nan at index 1"):
        trajectory_mean([0.0, math.nan], ["a", "b"])
    with pytest.raises(InvalidInput, match="trajectory ids are one for each value; got 1 for 2"):
        trajectory_mean([0.0, 1.0], ["a"])
    with pytest.raises(InvalidInput, match="got 'median'"):
        trajectory_mean([0.0], ["a"], how="median")  # type: ignore[arg-type]
