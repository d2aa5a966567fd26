"""Whitening with explicit weights, and spreading steps over tokens, against loops."""

import math
import random
from collections import Counter
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steppo_env.credit import StepBatch, normalize, spread, step_gae
from steppo_env.errors import InvalidInput
from tests.steppo_env.credit.conftest import ANY_SPEED, Rows, assert_close, ragged

Weights = Literal["steps", "trajectories", "tokens"]
Over = Literal["batch", "group"]


def standardised(values: list[float], weights: list[float]) -> list[float]:
    """Return (A - mean) / population deviation, each value weighted."""
    total = math.fsum(weights)
    mean = math.fsum(w * v for w, v in zip(weights, values)) / total
    variance = math.fsum(w * (v - mean) ** 2 for w, v in zip(weights, values)) / total
    return [(v - mean) / math.sqrt(variance) if variance > 0 else 0.0 for v in values]


def distinct(rows: Rows, seed: int) -> list[float]:
    """Return advantages of a spread far above rounding."""
    rng = random.Random(seed)
    return [rng.gauss(3.0, 2.0) for _ in range(rows.num_rows)]


def by_population(rows: Rows, over: Over) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row, name in enumerate(rows.trajectory):
        found.setdefault(rows.group[name] if over == "group" else "all", []).append(row)
    return found


@pytest.mark.parametrize("over", ["batch", "group"])
@pytest.mark.parametrize("weights", ["steps", "trajectories"])
@given(rows=ragged(), seed=st.integers(0, 2**16))
@settings(ANY_SPEED, max_examples=50)
def test_each_step_or_each_trajectory_counts_once(
    over: Over, weights: Weights, rows: Rows, seed: int
) -> None:
    advantages, num_steps = distinct(rows, seed), Counter(rows.trajectory)
    expected = [0.0] * rows.num_rows
    for members in by_population(rows, over).values():
        each = [1.0 if weights == "steps" else 1 / num_steps[rows.trajectory[r]] for r in members]
        values = standardised([advantages[row] for row in members], each)
        for row, value in zip(members, values):
            expected[row] = value
    got = normalize(np.array(advantages), rows.batch(), over=over, weights=weights)
    assert list(got) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("over", ["batch", "group"])
@pytest.mark.parametrize("weights", ["steps", "trajectories", "tokens"])
@given(rows=ragged(), seed=st.integers(0, 2**16))
@settings(ANY_SPEED, max_examples=50)
def test_tokens_share_the_weight_of_their_step_or_count_once_each(
    over: Over, weights: Weights, rows: Rows, seed: int
) -> None:
    rng, num_steps = random.Random(seed), Counter(rows.trajectory)
    tokens = rows.tokens()
    advantages = [rng.gauss(3.0, 2.0) for _ in tokens]

    def weight(row: int) -> float:
        if weights == "tokens":
            return 1.0
        share = 1 / rows.response_length[row]
        return share if weights == "steps" else share / num_steps[rows.trajectory[row]]

    expected = [0.0] * len(tokens)
    for members in by_population(rows, over).values():
        places = [at for at, (row, _) in enumerate(tokens) if row in members]
        each = [weight(tokens[at][0]) for at in places]
        values = standardised([advantages[at] for at in places], each)
        for at, value in zip(places, values):
            expected[at] = value
    got = normalize(np.array(advantages), rows.batch(), over=over, weights=weights)
    assert list(got) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_by_hand() -> None:
    # Mean 2, population variance (4 + 0 + 4) / 3; the unbiased one would be 4.
    got = normalize(np.array([0.0, 2.0, 4.0]))
    assert got.tolist() == pytest.approx([-math.sqrt(1.5), 0.0, math.sqrt(1.5)])


def test_by_hand_a_trajectory_counts_once_however_long_it_is() -> None:
    batch = StepBatch.from_arrays(
        trajectory=["long", "short", "long", "long"], step=[0, 0, 1, 2], reward=[0.0] * 4
    )
    # Weights 1/3 each for the long one: mean 1/2, deviation 1/2.
    advantages = np.array([0.0, 1.0, 0.0, 0.0])
    got = normalize(advantages, batch, weights="trajectories")
    assert got.tolist() == pytest.approx([-1.0, 1.0, -1.0, -1.0])
    # Each step once: mean 1/4, variance 3/16.
    by_step = normalize(advantages, batch)
    assert by_step.tolist() == pytest.approx([-1 / 3**0.5, 3**0.5, -1 / 3**0.5, -1 / 3**0.5])


def test_rows_are_matched_with_their_groups_in_input_order() -> None:
    batch = StepBatch.from_arrays(
        trajectory=["b", "a", "b", "a"],
        step=[1, 1, 0, 0],
        reward=[0.0] * 4,
        group={"a": "g", "b": "h"},
    )
    got = normalize(np.array([10.0, 1.0, 30.0, 5.0]), batch, over="group")
    assert got.tolist() == pytest.approx([-1.0, -1.0, 1.0, 1.0])


@pytest.mark.parametrize("over", ["batch", "group"])
def test_a_population_of_one_is_0(over: Over) -> None:
    batch = StepBatch.from_arrays(trajectory=["a"], step=[0], reward=[3.0], group={"a": "g"})
    assert normalize(np.array([3.0]), batch, over=over).tolist() == [0.0]


@pytest.mark.parametrize("level", [0.0, 1.0, 0.1, -1e12 / 3, 1e-300])
def test_no_spread_is_exactly_0(level: float) -> None:
    assert normalize(np.full(7, level)).tolist() == [0.0] * 7


@pytest.mark.parametrize(
    "noise",
    [
        [0.1 + 0.2, 0.3, 0.3],
        [1.0, 1.0 + 2e-16, 1.0 - 1e-16],
        [1e-9, -1e-9, 0.0],
        [1e6 + 1e-3, 1e6, 1e6 - 1e-3],
    ],
)
def test_float_noise_is_not_amplified_to_unit_scale(noise: list[float]) -> None:
    assert normalize(np.array(noise)).tolist() == [0.0] * 3


def test_small_advantages_are_not_noise() -> None:
    assert normalize(np.array([1e-6, 3e-6])).tolist() == pytest.approx([-1.0, 1.0])
    assert normalize(np.array([1e6, 1e6 + 1.0])).tolist() == pytest.approx([-1.0, 1.0])


@ANY_SPEED
@given(st.lists(st.floats(-1e100, 1e100), min_size=1, max_size=20))
def test_it_is_finite_whatever_comes(values: list[float]) -> None:
    assert np.all(np.isfinite(normalize(np.array(values))))


@ANY_SPEED
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20))
def test_the_result_has_mean_0_and_deviation_1_or_is_0(values: list[float]) -> None:
    got = normalize(np.array(values))
    if np.any(got != 0.0):
        assert float(np.mean(got)) == pytest.approx(0.0, abs=1e-6)
        assert float(np.std(got)) == pytest.approx(1.0, rel=1e-6)
    else:
        assert np.std(values) <= 1e-8 * max(1.0, *map(abs, values)) * (1 + 1e-6)


@pytest.mark.parametrize("weights", ["steps", "trajectories"])
@pytest.mark.parametrize("over", ["batch", "group"])
@given(rows=ragged(), seed=st.integers(0, 2**16))
@settings(ANY_SPEED, max_examples=50)
def test_duplicating_the_batch_changes_nothing(
    over: Over, weights: Weights, rows: Rows, seed: int
) -> None:
    advantages = distinct(rows, seed)
    once = normalize(np.array(advantages), rows.batch(), over=over, weights=weights)
    twice = normalize(np.array(advantages * 2), rows.doubled().batch(), over=over, weights=weights)
    assert list(twice) == pytest.approx([*once, *once], rel=1e-9, abs=1e-9)


@ANY_SPEED
@given(ragged(), st.integers(0, 2**16))
def test_the_order_of_the_rows_changes_nothing(rows: Rows, seed: int) -> None:
    order = random.Random(seed).sample(range(rows.num_rows), rows.num_rows)
    advantages = np.array(distinct(rows, seed))
    for over in ("batch", "group", "none"):
        before = normalize(advantages, rows.batch(), over=over, weights="trajectories")
        moved = rows.permuted(order).batch()
        after = normalize(advantages[order], moved, over=over, weights="trajectories")
        assert after.tolist() == pytest.approx(before[order].tolist(), rel=1e-12, abs=1e-12)


def test_over_none_gives_the_raw_advantages_and_the_input_stays_as_it_was() -> None:
    raw = np.array([3.0, 1.0, 2.0])
    assert normalize(raw, over="none").tolist() == [3.0, 1.0, 2.0]
    normalize(raw)
    normalize(raw, over="none")[0] = 99.0
    assert raw.tolist() == [3.0, 1.0, 2.0]


def test_estimators_do_not_normalise_by_themselves() -> None:
    batch = StepBatch.from_arrays(trajectory=["a", "b"], step=[0, 0], reward=[10.0, 30.0])
    raw = step_gae(batch, 1.0, 1.0).advantages
    assert raw.tolist() == [10.0, 30.0]
    assert normalize(raw, batch).tolist() == [-1.0, 1.0]


STEPS = StepBatch.from_arrays(trajectory=["a", "a"], step=[0, 1], reward=[1.0, 2.0])


def test_what_needs_the_batch_says_so() -> None:
    with pytest.raises(InvalidInput, match="batch"):
        normalize(np.array([1.0, 2.0]), over="group")
    with pytest.raises(InvalidInput, match="batch"):
        normalize(np.array([1.0, 2.0]), weights="trajectories")
    with pytest.raises(InvalidInput, match="batch"):
        normalize(np.array([1.0, 2.0]), weights="tokens")
    with pytest.raises(InvalidInput, match="group"):
        normalize(np.array([1.0, 2.0]), STEPS, over="group")


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_length_that_is_neither_steps_nor_tokens_is_refused(length: int) -> None:
    """A padded array cannot get in: its length gives it away."""
    with pytest.raises(InvalidInput, match="2"):
        normalize(np.zeros(length), STEPS)


def test_weights_by_token_are_for_advantages_by_token() -> None:
    batch = StepBatch.from_arrays(
        trajectory=["a", "a"], step=[0, 1], reward=[1.0, 2.0], response_length=[1, 2]
    )
    with pytest.raises(InvalidInput, match=r"2 steps and 3 tokens"):
        normalize(np.zeros(2), batch, weights="tokens")
    with pytest.raises(InvalidInput, match=r"response_length"):
        normalize(np.zeros(2), STEPS, weights="tokens")


def test_unknown_choices_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"batch.*group.*none"):
        normalize(np.zeros(2), STEPS, over="planet")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"steps.*trajectories.*tokens"):
        normalize(np.zeros(2), STEPS, weights="rows")  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_does_not_spread(bad: float) -> None:
    with pytest.raises(InvalidInput):
        normalize(np.array([1.0, bad]))


def test_spread_repeats_each_step_over_its_tokens() -> None:
    got = spread(np.array([1.5, -2.0, 0.0]), [2, 1, 3])
    assert got.tolist() == [1.5, 1.5, -2.0, 0.0, 0.0, 0.0]
    assert got.dtype == np.float64


@ANY_SPEED
@given(ragged(), st.integers(0, 2**16))
def test_spread_keeps_the_input_order(rows: Rows, seed: int) -> None:
    advantages = distinct(rows, seed)
    expected = [advantages[row] for row, _ in rows.tokens()]
    assert_close(spread(np.array(advantages), rows.response_length), expected)


@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [1, 0], [2, -1], [1.0, 2.0], []])
def test_spread_checks_the_lengths(lengths: list[int]) -> None:
    with pytest.raises(InvalidInput):
        spread(np.array([1.0, 2.0]), lengths)
