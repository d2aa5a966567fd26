"""Generalised advantages, per step and per token, against sums written out."""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steppo_env.credit import Credit, StepBatch, step_gae, token_gae, token_gae_step_discount
from steppo_env.errors import InvalidInput
from tests.steppo_env.credit.conftest import ANY_SPEED, UNIT, Rows, assert_close, ragged

Estimator = Callable[[StepBatch, float, float], Credit]


def td_errors(rows: Rows, gamma: float) -> tuple[list[float], list[float]]:
    """Return delta and the next state's value of each row."""
    delta, following = [0.0] * rows.num_rows, [0.0] * rows.num_rows
    for name, episode in rows.episodes().items():
        after = [*(rows.value[row] for row in episode[1:]), rows.value_after(name)]
        for row, next_value in zip(episode, after):
            following[row] = next_value
            delta[row] = rows.step_reward(row) + gamma * next_value - rows.value[row]
    return delta, following


def token_loop(rows: Rows, discounts: list[tuple[float, float]]) -> list[float]:
    """Return the advantage of each token; `discounts` is (gamma, lam) of the tokens of each row."""
    found: dict[tuple[int, int], float] = {}
    for name, episode in rows.episodes().items():
        carry, next_value = 0.0, rows.value_after(name)
        for row in reversed(episode):
            gamma, lam = discounts[row]
            for at in reversed(range(rows.response_length[row])):
                is_last = at == rows.response_length[row] - 1
                reward = rows.token_reward[row][at] + (rows.reward[row] if is_last else 0.0)
                value = rows.token_value[row][at]
                carry = reward + gamma * next_value - value + gamma * lam * carry
                found[row, at], next_value = carry, value
    return [found[token] for token in rows.tokens()]


@ANY_SPEED
@given(ragged(), UNIT, UNIT)
def test_step_gae_is_the_double_sum_over_future_td_errors(
    rows: Rows, gamma: float, lam: float
) -> None:
    delta, following = td_errors(rows, gamma)
    expected = [0.0] * rows.num_rows
    for episode in rows.episodes().values():
        for t, row in enumerate(episode):
            expected[row] = sum(
                (gamma * lam) ** k * delta[later] for k, later in enumerate(episode[t:])
            )
    credit = step_gae(rows.batch(), gamma, lam)
    assert credit.level == "step"
    assert_close(credit.advantages, expected, rows.magnitude)
    returns = [a + v for a, v in zip(expected, rows.value)]
    assert_close(credit.returns, returns, rows.magnitude)
    assert_close(credit.diagnostics["delta"], delta, rows.magnitude)
    assert_close(credit.diagnostics["next_value"], following, rows.magnitude)


@ANY_SPEED
@given(ragged(), UNIT)
def test_with_lam_1_it_is_the_discounted_return_minus_the_value(rows: Rows, gamma: float) -> None:
    to_go = [0.0] * rows.num_rows
    for name, episode in rows.episodes().items():
        for t, row in enumerate(episode):
            rewards = [rows.step_reward(later) for later in episode[t:]]
            to_go[row] = sum(gamma**k * reward for k, reward in enumerate(rewards))
            to_go[row] += gamma ** len(rewards) * rows.value_after(name)
    credit = step_gae(rows.batch(), gamma, 1.0)
    assert_close(credit.returns, to_go, rows.magnitude)
    advantages = [g - v for g, v in zip(to_go, rows.value)]
    assert_close(credit.advantages, advantages, rows.magnitude)


@ANY_SPEED
@given(ragged(), UNIT)
def test_with_lam_0_it_is_the_td_error(rows: Rows, gamma: float) -> None:
    delta, _ = td_errors(rows, gamma)
    assert_close(step_gae(rows.batch(), gamma, 0.0).advantages, delta, rows.magnitude)


@ANY_SPEED
@given(ragged())
def test_undiscounted_and_without_values_it_is_what_the_trajectory_still_earns(rows: Rows) -> None:
    credit = step_gae(rows.batch("value", "token_value"), 1.0, 1.0)
    expected = [0.0] * rows.num_rows
    for name, episode in rows.episodes().items():
        for t, row in enumerate(episode):
            expected[row] = sum(rows.step_reward(later) for later in episode[t:])
            expected[row] += rows.value_after(name)
    assert_close(credit.advantages, expected, rows.magnitude)
    assert_close(credit.returns, expected, rows.magnitude)


def test_step_gae_by_hand() -> None:
    batch = StepBatch.from_arrays(
        trajectory=["a", "b", "a"],
        step=[1, 0, 0],
        reward=[1.0, 2.0, 0.0],
        value=[0.5, 1.0, 0.25],
        terminated={"a": True, "b": False},
        bootstrap_value={"a": 100.0, "b": 4.0},
    )
    credit = step_gae(batch, gamma=0.5, lam=0.5)
    # a: delta_1 = 1 - 0.5 = 0.5; delta_0 = 0 + 0.5 * 0.5 - 0.25 = 0; A_0 = 0 + 0.25 * 0.5
    # b: delta_0 = 2 + 0.5 * 4 - 1 = 3
    assert credit.advantages.tolist() == [0.5, 3.0, 0.125]
    assert credit.returns.tolist() == [1.0, 4.0, 0.375]
    assert credit.diagnostics["delta"].tolist() == [0.5, 3.0, 0.0]
    assert credit.diagnostics["next_value"].tolist() == [0.0, 4.0, 0.5]


def test_token_gae_by_hand() -> None:
    # Values 1 2 | 4, rewards 0 1 | 2 (the step's reward is on its last token), gamma 0.5, lam 1:
    # A = 2 - 4 = -2 | 1 + 0.5 * 4 - 2 + 0.5 * -2 = 0; 0 + 0.5 * 2 - 1 + 0.5 * 0 = 0
    batch = StepBatch.from_arrays(
        trajectory=["a", "a"],
        step=[0, 1],
        reward=[1.0, 2.0],
        response_length=[2, 1],
        token_value=[[1.0, 2.0], [4.0]],
    )
    credit = token_gae(batch, gamma=0.5, lam=1.0)
    assert credit.level == "token"
    assert credit.advantages.tolist() == [0.0, 0.0, -2.0]
    assert credit.returns.tolist() == [1.0, 2.0, 2.0]


def test_a_step_discount_does_not_depend_on_how_many_tokens_a_step_has() -> None:
    for length in (1, 2, 50):
        batch = StepBatch.from_arrays(
            trajectory=["a"] * 3,
            step=[0, 1, 2],
            reward=[0.0, 0.0, 1.0],
            response_length=[length, length, 1],
        )
        fair = token_gae_step_discount(batch, gamma=0.9, lam=1.0).advantages
        # Two whole steps lie between the first token and the reward.
        assert fair[0] == pytest.approx(0.81, rel=1e-12)
        assert fair[length] == pytest.approx(0.9, rel=1e-12)
        # A discount per token forgets: 0.9 ** 100 is 3e-5.
        per_token = token_gae(batch, gamma=0.9, lam=1.0).advantages
        assert per_token[0] == pytest.approx(0.9 ** (2 * length), rel=1e-12)


@ANY_SPEED
@given(ragged(), UNIT, UNIT)
def test_token_gae_is_the_loop_over_all_tokens_of_a_trajectory(
    rows: Rows, gamma: float, lam: float
) -> None:
    expected = token_loop(rows, [(gamma, lam)] * rows.num_rows)
    credit = token_gae(rows.batch(), gamma, lam)
    assert credit.level == "token"
    assert_close(credit.advantages, expected, rows.magnitude)
    values = [rows.token_value[row][at] for row, at in rows.tokens()]
    assert_close(credit.returns, [a + v for a, v in zip(expected, values)], rows.magnitude)


@ANY_SPEED
@given(ragged(), UNIT, UNIT)
def test_the_step_discount_is_spread_over_the_tokens_of_its_step(
    rows: Rows, gamma: float, lam: float
) -> None:
    discounts = [(gamma ** (1 / n), lam ** (1 / n)) for n in rows.response_length]
    credit = token_gae_step_discount(rows.batch(), gamma, lam)
    assert credit.level == "token"
    assert_close(credit.advantages, token_loop(rows, discounts), rows.magnitude)


@ANY_SPEED
@given(ragged())
def test_undiscounted_both_token_variants_are_one(rows: Rows) -> None:
    batch = rows.batch()
    per_token, per_step = token_gae(batch, 1.0, 1.0), token_gae_step_discount(batch, 1.0, 1.0)
    assert_close(per_token.advantages, per_step.advantages, rows.magnitude)


@pytest.mark.parametrize("without", [(), ("token_value",), ("value",), ("value", "token_value")])
@pytest.mark.parametrize("variant", [token_gae, token_gae_step_discount])
@given(rows=ragged(max_tokens=1), gamma=UNIT, lam=UNIT)
@settings(ANY_SPEED, max_examples=25)
def test_with_one_token_a_step_token_gae_is_step_gae(
    variant: Estimator, without: tuple[str, ...], rows: Rows, gamma: float, lam: float
) -> None:
    tokens = variant(rows.batch(*without), gamma, lam)
    steps = step_gae(rows.batch(*(without if len(without) == 2 else ())), gamma, lam)
    assert_close(tokens.advantages, steps.advantages, rows.magnitude)
    assert_close(tokens.returns, steps.returns, rows.magnitude)


@ANY_SPEED
@given(ragged(), UNIT, UNIT)
def test_without_any_values_tokens_have_the_value_0(rows: Rows, gamma: float, lam: float) -> None:
    zeros = replace(rows, token_value=[[0.0] * n for n in rows.response_length])
    expected = token_loop(zeros, [(gamma, lam)] * rows.num_rows)
    credit = token_gae(rows.batch("value", "token_value"), gamma, lam)
    assert_close(credit.advantages, expected, rows.magnitude)


@pytest.mark.parametrize("variant", [token_gae, token_gae_step_discount])
def test_token_gae_refuses_to_guess_lengths_and_token_values(variant: Estimator) -> None:
    steps = StepBatch.from_arrays(trajectory=["a"], step=[0], reward=[1.0])
    with pytest.raises(InvalidInput, match="response_length"):
        variant(steps, 1.0, 1.0)
    long = StepBatch.from_arrays(
        trajectory=["a"], step=[0], reward=[1.0], value=[0.5], response_length=[2]
    )
    with pytest.raises(InvalidInput, match="token_value"):
        variant(long, 1.0, 1.0)


@pytest.mark.parametrize("estimator", [step_gae, token_gae, token_gae_step_discount])
@given(rows=ragged(), gamma=UNIT, lam=UNIT, seed=st.integers(0, 2**16))
@settings(ANY_SPEED, max_examples=50)
def test_the_order_of_the_rows_changes_nothing(
    estimator: Estimator, rows: Rows, gamma: float, lam: float, seed: int
) -> None:
    order = random.Random(seed).sample(range(rows.num_rows), rows.num_rows)
    before = estimator(rows.batch(), gamma, lam)
    after = estimator(rows.permuted(order).batch(), gamma, lam)
    if before.level == "step":
        kept = before.advantages[order], before.returns[order]
    else:
        starts = np.concatenate([[0], np.cumsum(rows.response_length)])
        tokens = np.concatenate([np.arange(starts[row], starts[row + 1]) for row in order])
        kept = before.advantages[tokens], before.returns[tokens]
    assert np.array_equal(after.advantages, kept[0])
    assert np.array_equal(after.returns, kept[1])


@ANY_SPEED
@given(ragged(), UNIT, UNIT)
def test_a_trajectory_never_sees_the_others_of_its_batch(
    rows: Rows, gamma: float, lam: float
) -> None:
    whole = step_gae(rows.batch(), gamma, lam).advantages
    for name, episode in rows.episodes().items():
        alone = StepBatch.from_arrays(
            trajectory=[name] * len(episode),
            step=[rows.step[row] for row in episode],
            reward=[rows.step_reward(row) for row in episode],
            value=[rows.value[row] for row in episode],
            terminated={name: rows.terminated[name]},
            bootstrap_value={name: rows.bootstrap_value[name]},
        )
        own = step_gae(alone, gamma, lam).advantages
        assert_close(own, whole[episode], rows.magnitude)


@pytest.mark.parametrize("gamma", [0.5, 0.99, 1.0])
def test_long_trajectories_neither_overflow_nor_drift(gamma: float) -> None:
    """0.5 ** 5000 is 0 in floating point: a formula that divides by it gives inf or NaN."""
    rng = random.Random(5)
    rewards = [rng.gauss(0.0, 1.0) for _ in range(5000)]
    batch = StepBatch.from_arrays(trajectory=[7] * 5000, step=range(5000), reward=rewards)
    expected, carry = [0.0] * 5000, 0.0
    for at in reversed(range(5000)):
        expected[at] = carry = rewards[at] + gamma * carry
    assert_close(step_gae(batch, gamma, 1.0).advantages, expected, 5000.0)


# From single steps to thousands in one batch: whatever an implementation cuts a batch into, the cuts
# fall inside some of these. Each entry is the number of steps of a trajectory.
SHAPES = {
    "short and long in turn": [1, 700, 2, 31, 32, 33, 16, 17, 1, 64, 65, 400] * 2,
    "many short ones": [1 + at % 5 for at in range(1000)],
    "a few long ones": [2000, 1999, 1, 500],
    "single steps": [1] * 500,
    "long responses": [20, 3, 50, 1] * 15,
}


def large(lengths: list[int], max_tokens: int) -> Rows:
    rng = random.Random(len(lengths))
    names = [f"t{at:05}" for at in range(len(lengths))]
    cells = [(name, at) for name, length in zip(names, lengths) for at in range(length)]
    rng.shuffle(cells)
    num_tokens = [rng.randint(1, max_tokens) for _ in cells]
    token_value = [[rng.gauss(0.0, 1.0) for _ in range(count)] for count in num_tokens]
    return Rows(
        [name for name, _ in cells],
        [at for _, at in cells],
        [rng.gauss(0.0, 1.0) for _ in cells],
        [values[0] for values in token_value],
        [""] * len(cells),
        num_tokens,
        token_value,
        [[rng.gauss(0.0, 0.1) for _ in range(count)] for count in num_tokens],
        {name: at % 3 > 0 for at, name in enumerate(names)},
        {name: rng.gauss(0.0, 1.0) for name in names},
        dict.fromkeys(names, "g"),
    )


@pytest.mark.parametrize(("gamma", "lam"), [(0.99, 0.95), (1.0, 1.0)])
@pytest.mark.parametrize("shape", SHAPES)
def test_large_ragged_batches_are_the_loop_too(shape: str, gamma: float, lam: float) -> None:
    rows = large(SHAPES[shape], max_tokens=200 if shape == "long responses" else 5)
    batch, num_steps = rows.batch(), max(SHAPES[shape])
    delta, _ = td_errors(rows, gamma)
    expected = [0.0] * rows.num_rows
    for episode in rows.episodes().values():
        carry = 0.0
        for row in reversed(episode):
            expected[row] = carry = delta[row] + gamma * lam * carry
    assert_close(step_gae(batch, gamma, lam).advantages, expected, 10.0 * num_steps)
    discounts = [(gamma, lam)] * rows.num_rows
    tokens = token_gae(batch, gamma, lam).advantages
    assert_close(tokens, token_loop(rows, discounts), 100.0 * num_steps)
    discounts = [(gamma ** (1 / n), lam ** (1 / n)) for n in rows.response_length]
    tokens = token_gae_step_discount(batch, gamma, lam).advantages
    assert_close(tokens, token_loop(rows, discounts), 100.0 * num_steps)


@pytest.mark.parametrize("estimator", [step_gae, token_gae, token_gae_step_discount])
def test_truncated_bootstraps_and_terminated_does_not(estimator: Estimator) -> None:
    batch = StepBatch.from_arrays(
        trajectory=["ended", "cut"],
        step=[0, 0],
        reward=[1.0, 1.0],
        value=[0.0, 0.0],
        response_length=[1, 1],
        terminated={"ended": True, "cut": False},
        bootstrap_value={"ended": 10.0, "cut": 10.0},
    )
    assert estimator(batch, 0.5, 1.0).advantages.tolist() == [1.0, 6.0]


@pytest.mark.parametrize("estimator", [step_gae, token_gae, token_gae_step_discount])
def test_a_truncated_trajectory_of_unknown_value_is_refused_by_name(
    estimator: Estimator,
) -> None:
    batch = StepBatch.from_arrays(
        trajectory=["ended", "cut-short"],
        step=[0, 0],
        reward=[1.0, 1.0],
        response_length=[1, 1],
        terminated={"ended": True, "cut-short": False},
    )
    with pytest.raises(InvalidInput, match="cut-short"):
        estimator(batch, 1.0, 1.0)
