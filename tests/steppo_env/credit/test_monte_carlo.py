"""Values from sampled continuations (VinePPO, arXiv 2410.01679), against loops."""

from dataclasses import replace

import pytest
from hypothesis import given

from steppo_env.credit import StepBatch, monte_carlo
from steppo_env.errors import InvalidInput
from tests.steppo_env.credit.conftest import ANY_SPEED, UNIT, Rows, assert_close, ragged


def fork_value(forks: list[list[float]], gamma: float) -> float:
    returns = [sum(gamma**k * reward for k, reward in enumerate(fork)) for fork in forks]
    return sum(returns) / len(returns)


@ANY_SPEED
@given(ragged(), UNIT)
def test_advantages_are_td_errors_of_the_mean_returns_of_the_forks(
    rows: Rows, gamma: float
) -> None:
    expected, returns = [0.0] * rows.num_rows, [0.0] * rows.num_rows
    for name, episode in rows.episodes().items():
        values = [fork_value(rows.forks[name, at], gamma) for at in range(len(episode))]
        for at, row in enumerate(episode):
            after = values[at + 1] if at + 1 < len(values) else rows.value_after(name)
            returns[row] = rows.step_reward(row) + gamma * after
            expected[row] = returns[row] - values[at]
    credit = monte_carlo(rows.batch(), gamma)
    assert credit.level == "step"
    assert_close(credit.advantages, expected, rows.magnitude)
    assert_close(credit.returns, returns, rows.magnitude)


@ANY_SPEED
@given(ragged(), UNIT)
def test_the_critic_has_no_say(rows: Rows, gamma: float) -> None:
    with_critic = monte_carlo(rows.batch(), gamma)
    without = monte_carlo(rows.batch("value", "token_value"), gamma)
    assert with_critic.advantages.tolist() == without.advantages.tolist()


def test_by_hand() -> None:
    batch = StepBatch.from_arrays(
        trajectory=["a", "a"],
        step=[1, 0],
        reward=[1.0, 0.0],
        forks={("a", 0): [[0.0, 1.0], [0.0]], ("a", 1): [[1.0], [1.0], [0.0], [0.0]]},
    )
    # V(s_0) = (0.5 + 0) / 2 = 0.25 and V(s_1) = 0.5.
    credit = monte_carlo(batch, gamma=0.5)
    assert credit.advantages.tolist() == [1.0 - 0.5, 0.5 * 0.5 - 0.25]
    assert credit.returns.tolist() == [1.0, 0.25]


def test_a_step_without_forks_is_named() -> None:
    batch = StepBatch.from_arrays(
        trajectory=["alpha", "alpha", "bravo"],
        step=[0, 1, 0],
        reward=[0.0, 0.0, 1.0],
        forks={("alpha", 0): [[1.0]], ("bravo", 0): [[1.0]]},
    )
    with pytest.raises(InvalidInput, match=r"alpha.*\b1\b|\b1\b.*alpha"):
        monte_carlo(batch, 1.0)


def test_a_batch_without_forks_is_refused() -> None:
    with pytest.raises(InvalidInput, match="fork"):
        monte_carlo(StepBatch.from_arrays(trajectory=["a"], step=[0], reward=[1.0]), 1.0)


def test_an_unknown_bootstrap_is_refused_by_name() -> None:
    batch = StepBatch.from_arrays(
        trajectory=["cut-short"],
        step=[0],
        reward=[0.0],
        terminated={"cut-short": False},
        forks={("cut-short", 0): [[1.0]]},
    )
    with pytest.raises(InvalidInput, match="cut-short"):
        monte_carlo(batch, 1.0)


@ANY_SPEED
@given(ragged(), UNIT)
def test_forks_in_another_order_change_nothing_but_rounding(rows: Rows, gamma: float) -> None:
    turned = replace(rows, forks={cell: each[::-1] for cell, each in rows.forks.items()})
    one, other = monte_carlo(rows.batch(), gamma), monte_carlo(turned.batch(), gamma)
    assert_close(one.advantages, other.advantages, rows.magnitude)
