"""Estimators that compare the returns of a group, against loops."""

import statistics
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from steppo_env.credit import (
    Credit,
    StepBatch,
    broadcast,
    dr_grpo,
    grpo,
    reinforce_pp,
    reinforce_pp_baseline,
    rloo,
)
from steppo_env.errors import InvalidInput
from tests.steppo_env.credit.conftest import ANY_SPEED, UNIT, Rows, assert_close, ragged

Estimator = Callable[[StepBatch], Credit]
GROUPED: list[Estimator] = [grpo, dr_grpo, rloo, reinforce_pp_baseline]


def grouped(rows: Rows) -> list[tuple[str, list[float]]]:
    """Return each trajectory's name and the returns of its group, its own first."""
    returns = {name: rows.return_of(name) for name in rows.episodes()}
    return [
        (
            name,
            [own]
            + [
                other
                for mate, other in returns.items()
                if mate != name and rows.group[mate] == rows.group[name]
            ],
        )
        for name, own in returns.items()
    ]


def per_row(rows: Rows, by_trajectory: dict[str, float]) -> list[float]:
    return [by_trajectory[name] for name in rows.trajectory]


def single_steps(returns: list[float], group: list[str]) -> StepBatch:
    """Return one-step trajectories 0, 1, ... with these returns in these groups."""
    names = range(len(returns))
    return StepBatch.from_arrays(
        trajectory=list(names),
        step=[0] * len(returns),
        reward=returns,
        group=dict(zip(names, group)),
    )


@ANY_SPEED
@given(ragged())
def test_broadcast_gives_every_step_the_return_of_its_trajectory(rows: Rows) -> None:
    credit = broadcast(rows.batch())
    expected = per_row(rows, {name: rows.return_of(name) for name in rows.episodes()})
    assert credit.level == "step"
    assert_close(credit.advantages, expected, rows.magnitude)
    assert_close(credit.returns, expected, rows.magnitude)


@ANY_SPEED
@given(ragged())
def test_dr_grpo_and_reinforce_pp_baseline_subtract_the_mean_of_the_group(rows: Rows) -> None:
    expected = {name: group[0] - statistics.fmean(group) for name, group in grouped(rows)}
    for estimator in (dr_grpo, reinforce_pp_baseline):
        credit = estimator(rows.batch())
        assert credit.level == "step"
        assert_close(credit.advantages, per_row(rows, expected), rows.magnitude)


@ANY_SPEED
@given(ragged())
def test_rloo_subtracts_the_mean_of_the_others(rows: Rows) -> None:
    expected = {
        name: group[0] - statistics.fmean(group[1:]) if len(group) > 1 else 0.0
        for name, group in grouped(rows)
    }
    assert_close(rloo(rows.batch()).advantages, per_row(rows, expected), rows.magnitude)


@pytest.mark.parametrize("eps", [1e-6, 0.5])
@ANY_SPEED
@given(rows=ragged())
def test_grpo_divides_by_the_unbiased_deviation_of_the_group(eps: float, rows: Rows) -> None:
    batch, groups = rows.batch(), grouped(rows)
    expected = {
        name: (group[0] - statistics.fmean(group)) / (statistics.stdev(group) + eps)
        if len(group) > 1
        else 0.0
        for name, group in groups
    }
    got = grpo(batch, eps=eps).advantages
    # The quotient is of the order of 1, whatever the returns; its error is that of the difference.
    smallest = min((statistics.stdev(g) + eps for _, g in groups if len(g) > 1), default=1.0)
    assert_close(got, per_row(rows, expected), max(1.0, rows.magnitude / smallest))


def test_grpo_by_hand() -> None:
    # Returns 0, 1, 2: mean 1, unbiased deviation 1.
    credit = grpo(single_steps([0.0, 1.0, 2.0], ["g"] * 3), eps=1.0)
    assert credit.advantages.tolist() == [-0.5, 0.0, 0.5]
    assert credit.returns.tolist() == [0.0, 1.0, 2.0]
    assert grpo(single_steps([0.0, 1.0, 2.0], ["g"] * 3)).advantages[2] == 1 / (1 + 1e-6)


def test_rloo_by_hand() -> None:
    credit = rloo(single_steps([1.0, 4.0, 7.0, 9.0], ["g", "g", "g", "h"]))
    assert credit.advantages.tolist() == [-4.5, 0.0, 4.5, 0.0]


@pytest.mark.parametrize("estimator", GROUPED)
@ANY_SPEED
@given(rows=ragged())
def test_returns_are_the_returns_of_the_trajectories(estimator: Estimator, rows: Rows) -> None:
    credit = estimator(rows.batch())
    expected = per_row(rows, {name: rows.return_of(name) for name in rows.episodes()})
    assert_close(credit.returns, expected, rows.magnitude)


@pytest.mark.parametrize("estimator", GROUPED)
def test_a_group_of_one_has_no_advantage_and_is_counted(estimator: Estimator) -> None:
    credit = estimator(single_steps([5.0, 1.0, 2.0, -3.0], ["alone", "pair", "pair", "lone"]))
    assert credit.advantages[[0, 3]].tolist() == [0.0, 0.0]
    assert np.all(credit.advantages[1:3] != 0.0)
    assert credit.counts["num_singleton_groups"] == 2
    pair = estimator(single_steps([1.0, 2.0], ["pair", "pair"]))
    assert pair.counts["num_singleton_groups"] == 0


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, 1e9 / 3, -7e-12])
@pytest.mark.parametrize("estimator", GROUPED)
def test_equal_returns_have_exactly_no_advantage(estimator: Estimator, reward: float) -> None:
    """The mean of three times 0.1 is not 0.1 in floating point."""
    credit = estimator(single_steps([reward] * 7, ["a"] * 3 + ["b"] * 4))
    assert credit.advantages.tolist() == [0.0] * 7


def test_without_eps_a_group_without_spread_is_still_0() -> None:
    credit = grpo(single_steps([2.0, 2.0, 5.0, 1.0, 3.0], ["a", "a", "alone", "b", "b"]), eps=0.0)
    assert credit.advantages.tolist() == pytest.approx([0.0, 0.0, 0.0, -(0.5**0.5), 0.5**0.5])


def test_grpo_counts_groups_without_variance() -> None:
    rewards, group = [0.1] * 3 + [1.0, 2.0] + [5.0], ["a"] * 3 + ["b"] * 2 + ["c"]
    credit = grpo(single_steps(rewards, group))
    assert credit.counts["num_zero_variance_groups"] == 1
    assert credit.counts["num_singleton_groups"] == 1


def test_equal_returns_by_other_routes_are_equal() -> None:
    """0.1 + 0.2 and 0.3 differ in the last bit: that is no signal to divide by its own spread."""
    batch = StepBatch.from_arrays(
        trajectory=["a", "a", "b"],
        step=[0, 1, 0],
        reward=[0.1, 0.2, 0.3],
        group={"a": "g", "b": "g"},
    )
    assert np.all(np.abs(grpo(batch).advantages) < 1e-9)


@pytest.mark.parametrize("estimator", GROUPED)
def test_group_estimators_need_groups(estimator: Estimator) -> None:
    with pytest.raises(InvalidInput, match="group"):
        estimator(StepBatch.from_arrays(trajectory=["a"], step=[0], reward=[1.0]))


@pytest.mark.parametrize("group", [{1: "x", 2: "x"}, {1: ("q", 3), 2: ("q", 3)}, {1: 0, 2: 0}])
def test_any_hashable_names_a_group(group: dict[int, object]) -> None:
    batch = StepBatch.from_arrays(trajectory=[1, 2], step=[0, 0], reward=[0.0, 2.0], group=group)
    assert dr_grpo(batch).advantages.tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("estimator", [broadcast, *GROUPED])
def test_a_truncated_return_counts_what_it_bootstraps_from_when_known(
    estimator: Estimator,
) -> None:
    def batch(bootstrap_value: dict[str, float] | None) -> StepBatch:
        return StepBatch.from_arrays(
            trajectory=["cut", "ended"],
            step=[0, 0],
            reward=[1.0, 1.0],
            terminated={"cut": False, "ended": True},
            bootstrap_value=bootstrap_value,
            group={"cut": "g", "ended": "g"},
        )

    known = estimator(batch({"cut": 4.0, "ended": 4.0}))
    assert known.returns.tolist() == [5.0, 1.0]
    assert known.counts["num_truncated_without_bootstrap"] == 0
    unknown = estimator(batch(None))
    assert unknown.returns.tolist() == [1.0, 1.0]
    assert unknown.counts["num_truncated_without_bootstrap"] == 1


@ANY_SPEED
@given(ragged(), UNIT)
def test_reinforce_pp_is_the_discounted_return_to_go_across_steps(rows: Rows, gamma: float) -> None:
    credit = reinforce_pp(rows.batch(), gamma)
    expected = rows.to_go(gamma)
    assert credit.level == "step"
    assert_close(credit.advantages, expected, rows.magnitude)
    assert_close(credit.returns, expected, rows.magnitude)


@ANY_SPEED
@given(ragged(), UNIT)
def test_reinforce_pp_adds_0_where_the_bootstrap_is_unknown(rows: Rows, gamma: float) -> None:
    credit = reinforce_pp(rows.batch("bootstrap_value"), gamma)
    nothing = replace(rows, bootstrap_value=dict.fromkeys(rows.terminated, 0.0))
    assert_close(credit.advantages, nothing.to_go(gamma), rows.magnitude)
    truncated = sum(not ended for ended in rows.terminated.values())
    assert credit.counts["num_truncated_without_bootstrap"] == truncated
