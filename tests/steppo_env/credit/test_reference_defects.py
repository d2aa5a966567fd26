"""Defects of public step-level credit code, each as a test that this package does not have it.

Numbers after "pitfall" count a checklist for re-implementations of StepPO; those after "peer" count
defects read in other projects' credit code.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from steppo_env.credit import (
    Credit,
    StepBatch,
    dr_grpo,
    estimate,
    gigpo,
    grpo,
    monte_carlo,
    normalize,
    reinforce_pp,
    reinforce_pp_baseline,
    rloo,
    spread,
    step_gae,
    token_gae,
    token_gae_step_discount,
)
from steppo_env.errors import InvalidInput

ROWS = [("a", 0, 1.0, 0.5), ("a", 1, 0.0, 0.25), ("b", 0, 2.0, 1.0), ("b", 1, 4.0, -1.0)]


def batch_of(rows: list[tuple[str, int, float, float]], **more: Any) -> StepBatch:
    trajectory, step, reward, value = zip(*rows)
    return StepBatch.from_arrays(
        trajectory=trajectory, step=step, reward=reward, value=value, **more
    )


def test_every_order_of_the_rows_gives_the_same_credit() -> None:
    """Pitfall 1 and peer 4: advantages went to the wrong rows when trajectories interleaved."""
    expected: dict[tuple[str, int], float] = {}
    for rows in itertools.permutations(ROWS):
        got = step_gae(batch_of(list(rows)), 0.5, 0.5).advantages
        named = {(row[0], row[1]): float(value) for row, value in zip(rows, got)}
        expected = expected or named
        assert named == expected
    # a: delta 1 + 0.125 - 0.5, -0.25; b: delta 2 - 0.5 - 1, 5. gamma lam = 0.25.
    assert expected == {("a", 0): 0.5625, ("a", 1): -0.25, ("b", 0): 1.75, ("b", 1): 5.0}


def test_there_is_no_room_for_a_pad() -> None:
    """Pitfalls 2 and 6, peer 2: padding rows were copies of the first ones."""
    with pytest.raises(InvalidInput, match="trajectory a"):
        batch_of([*ROWS, ROWS[0]])
    with pytest.raises(InvalidInput, match="value"):
        StepBatch.from_arrays(trajectory=["a"], step=[0], reward=[1.0], value=[0.5, 0.0])
    with pytest.raises(InvalidInput, match="token_value"):
        StepBatch.from_arrays(
            trajectory=["a"], step=[0], reward=[1.0], response_length=[1], token_value=[[0.5, 0.0]]
        )
    with pytest.raises(InvalidInput):
        normalize(np.array([1.0, 2.0, 3.0, 4.0, 0.0, 0.0]), batch_of(ROWS))


def test_the_reward_of_a_step_reaches_its_last_token_and_an_empty_response_is_refused() -> None:
    """Pitfall 4: the reward of an empty response went to index -1 and was lost."""
    batch = StepBatch.from_arrays(
        trajectory=["a", "a"], step=[0, 1], reward=[3.0, 5.0], response_length=[3, 2]
    )
    assert token_gae(batch, 0.0, 0.0).advantages.tolist() == [0.0, 0.0, 3.0, 0.0, 5.0]
    assert token_gae(batch, 1.0, 1.0).advantages.tolist() == [8.0, 8.0, 8.0, 5.0, 5.0]
    with pytest.raises(InvalidInput, match="trajectory a"):
        StepBatch.from_arrays(
            trajectory=["a", "a"], step=[0, 1], reward=[3.0, 5.0], response_length=[3, 0]
        )


@pytest.mark.parametrize(
    "estimator",
    [
        lambda batch: step_gae(batch, 0.5, 1.0),
        lambda batch: token_gae(batch, 0.5, 1.0),
        lambda batch: token_gae_step_discount(batch, 0.5, 1.0),
        lambda batch: reinforce_pp(batch, 0.5),
        lambda batch: monte_carlo(batch, 0.5),
    ],
)
def test_a_time_limit_is_not_a_terminal_state(estimator: Callable[[StepBatch], Credit]) -> None:
    """Pitfall 5 and peer 2: truncation counted as terminal, with a next value of 0."""
    batch = StepBatch.from_arrays(
        trajectory=["cut", "ended"],
        step=[0, 0],
        reward=[1.0, 1.0],
        response_length=[1, 1],
        terminated={"cut": False, "ended": True},
        bootstrap_value={"cut": 8.0, "ended": 8.0},
        forks={("cut", 0): [[0.0]], ("ended", 0): [[0.0]]},
    )
    assert estimator(batch).advantages.tolist() == [5.0, 1.0]


def test_an_unknown_bootstrap_is_never_silently_0() -> None:
    """Pitfalls 5 and 20: what a critic-based estimate lacks is said, by name."""
    batch = batch_of(ROWS, terminated={"a": True, "b": False})
    with pytest.raises(InvalidInput, match="trajectory b"):
        step_gae(batch, 1.0, 1.0)


@pytest.mark.parametrize("over", ["batch", "group"])
def test_one_row_is_whitened_to_0(over: Any) -> None:
    """Pitfall 6 and peer 2: the unbiased deviation of one row is NaN."""
    batch = StepBatch.from_arrays(trajectory=["a"], step=[0], reward=[7.0], group={"a": "g"})
    assert normalize(step_gae(batch, 1.0, 1.0).advantages, batch, over=over).tolist() == [0.0]


def test_an_all_failed_batch_with_a_flat_critic_trains_on_nothing() -> None:
    """Pitfall 6: rounding noise was divided by its own spread and became unit advantages."""
    rows = [(f"t{index}", 0, 0.0, 0.1 + index * 1e-12) for index in range(8)]
    batch = batch_of(rows)
    assert normalize(step_gae(batch, 1.0, 1.0).advantages, batch).tolist() == [0.0] * 8


def test_copies_do_not_move_the_mean_or_the_deviation() -> None:
    """Pitfall 6 and peer 2: duplicates of steps entered both."""
    batch = batch_of(ROWS)
    once = normalize(step_gae(batch, 1.0, 1.0).advantages, batch)
    copies = [(f"{name} again", *rest) for name, *rest in ROWS]
    twice = batch_of([*ROWS, *copies])  # type: ignore[list-item]
    got = normalize(step_gae(twice, 1.0, 1.0).advantages, twice)
    assert got.tolist() == pytest.approx([*once, *once], rel=1e-12)


def test_the_value_of_a_step_is_that_before_its_first_token() -> None:
    """Pitfall 7: only V(s_t), which knows nothing of the response, enters step-level credit."""
    batch = StepBatch.from_arrays(
        trajectory=["a"],
        step=[0],
        reward=[1.0],
        value=[0.25],
        response_length=[3],
        token_value=[[0.25, 0.5, 0.75]],
    )
    assert step_gae(batch, 1.0, 1.0).advantages.tolist() == [0.75]


def test_a_step_has_one_advantage_on_all_its_tokens() -> None:
    """Pitfalls 8 and 9: per-step quantities stay per step, and reach tokens by repetition only."""
    batch = batch_of(ROWS)
    advantages = step_gae(batch, 1.0, 1.0).advantages
    tokens = spread(advantages, [3, 1, 2, 4])
    pieces = np.split(tokens, [3, 4, 6])
    assert [set(piece) for piece in pieces] == [{value} for value in advantages]


def test_long_responses_and_long_trajectories_weigh_more_only_when_asked() -> None:
    """Pitfall 10: whether rows, trajectories or tokens count once was an accident of the code."""
    batch = StepBatch.from_arrays(
        trajectory=["a", "a", "b"], step=[0, 1, 0], reward=[0.0] * 3, response_length=[1, 1, 4]
    )
    by_step = np.array([0.0, 0.0, 1.0])
    by_token = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    # The share of the population that is at 1 is the mean m; a 1 becomes sqrt((1 - m) / m).
    for advantages, weights, mean in (
        (by_step, "steps", 1 / 3),
        (by_step, "trajectories", 1 / 2),
        (by_token, "steps", 1 / 3),
        (by_token, "trajectories", 1 / 2),
        (by_token, "tokens", 2 / 3),
    ):
        choice: Any = weights
        got = normalize(advantages, batch, weights=choice)
        assert got[-1] == pytest.approx(math.sqrt((1 - mean) / mean), rel=1e-12)


@pytest.mark.parametrize("estimator", [grpo, dr_grpo, rloo, reinforce_pp_baseline, gigpo])
def test_a_group_of_one_gives_0_and_not_the_raw_reward(
    estimator: Callable[[StepBatch], Credit],
) -> None:
    """Pitfall 12: mean 0 and deviation 1 were put in for a group of one."""
    batch = batch_of(ROWS, group={"a": "g", "b": "h"}, anchor=["x", "x2", "x", "y"])
    credit = estimator(batch)
    assert credit.advantages.tolist() == [0.0] * 4
    assert credit.counts["num_singleton_groups"] == 2


def test_reinforce_pp_crosses_steps() -> None:
    """Pitfall 13: returns stopped at each row, so all steps but the last had the return 0."""
    batch = StepBatch.from_arrays(
        trajectory=["a"] * 4, step=[0, 1, 2, 3], reward=[0.0, 0.0, 0.0, 1.0]
    )
    assert reinforce_pp(batch, 0.5).advantages.tolist() == [0.125, 0.25, 0.5, 1.0]


def test_a_discount_per_token_and_one_per_step_are_two_estimators() -> None:
    """Pitfall 14: 0.99 for each token leaves 5% of a reward one 300-token response away."""
    batch = StepBatch.from_arrays(
        trajectory=["a", "a"], step=[0, 1], reward=[0.0, 1.0], response_length=[300, 1]
    )
    per_token = token_gae(batch, 0.99, 1.0).advantages[0]
    assert per_token == pytest.approx(0.99**300, rel=1e-12)
    assert token_gae_step_discount(batch, 0.99, 1.0).advantages[0] == pytest.approx(0.99, rel=1e-12)
    assert step_gae(batch, 0.99, 1.0).advantages[0] == 0.99


@pytest.mark.parametrize("name", ["step_gae", "token_gae", "reinforce_pp", "monte_carlo"])
def test_no_discount_is_assumed(name: str) -> None:
    """Pitfall 14: a default discount hides which clock it ticks on."""
    with pytest.raises(InvalidInput, match="gamma"):
        estimate(name, batch_of(ROWS))


def test_a_turn_with_reward_0_stays_in_the_mdp() -> None:
    """Peer 1: the ends of turns were where the reward was not 0, so other turns vanished."""
    silent = batch_of([("a", 0, 0.0, 1.0), ("a", 1, 0.0, 2.0), ("a", 2, 1.0, 4.0)])
    # delta: 0.5 * 2 - 1, 0.5 * 4 - 2, 1 - 4; gamma lam = 0.5.
    credit = step_gae(silent, 0.5, 1.0)
    assert credit.diagnostics["delta"].tolist() == [0.0, 0.0, -3.0]
    assert credit.advantages.tolist() == [-0.75, -1.5, -3.0]
    all_silent = batch_of([("a", 0, 0.0, 1.0), ("a", 1, 0.0, 2.0)])
    assert step_gae(all_silent, 0.5, 1.0).advantages.tolist() == [-1.0, -2.0]


def test_adjacent_steps_stay_apart_whatever_their_tokens_are() -> None:
    """Peer 3: a step was a run of ones in a mask; neighbours fused and filters split."""
    batch = StepBatch.from_arrays(
        trajectory=["a", "a"], step=[0, 1], reward=[1.0, 1.0], response_length=[2, 2]
    )
    assert step_gae(batch, 0.5, 1.0).advantages.tolist() == [1.5, 1.0]
    # One fused step of four tokens would discount by 0.5 once in all.
    first = token_gae_step_discount(batch, 0.25, 1.0).advantages
    assert first.tolist() == [0.5 + 0.125, 1.0 + 0.25, 0.5, 1.0]


def test_one_bad_row_is_refused_by_name_and_takes_nothing_else_with_it() -> None:
    """Peer 5: one row without numbers dropped those of the whole batch without a word."""
    bad = [*ROWS[:3], ("b", 1, math.nan, 0.0)]
    with pytest.raises(InvalidInput, match="trajectory b"):
        batch_of(bad)
    with pytest.raises(InvalidInput, match="trajectory b"):
        batch_of([*ROWS[:3], ("b", 1, 0.0, math.nan)])


def test_rewards_keep_their_last_digit() -> None:
    """Peer 5: rewards were rounded to bfloat16, in which 0.28 and 0.2812 are one."""
    rows = [("a", 0, 0.28, 0.0), ("b", 0, 0.28 + 1e-15, 0.0)]
    got = step_gae(batch_of(rows), 1.0, 1.0).advantages
    assert got.dtype == np.float64
    assert got[0] != got[1]


def test_equal_states_are_all_kept() -> None:
    """Peer 5: only the last of identical requests survived, which drops legitimate resamples."""
    batch = StepBatch.from_arrays(
        trajectory=["a", "b", "c"],
        step=[0, 0, 0],
        reward=[0.0, 3.0, 6.0],
        group=dict.fromkeys("abc", "g"),
        anchor=["same"] * 3,
    )
    credit = gigpo(batch, normalize_std=False, step_weight=1.0)
    assert credit.advantages.tolist() == [-6.0, 0.0, 6.0]


def test_steps_of_a_trajectory_may_differ_in_credit() -> None:
    """Peer 5: an advantage that was not constant over a rollout raised."""
    advantages = step_gae(batch_of(ROWS), 1.0, 0.0).advantages
    assert advantages[0] != advantages[1]


def test_a_mean_over_trajectories_does_not_count_steps() -> None:
    """Peer 7: rewards averaged over steps read 0.28 where the mean over trajectories was 0.45."""
    batch = StepBatch.from_arrays(
        trajectory=["failed"] * 9 + ["solved"], step=[*range(9), 0], reward=[0.0] * 9 + [1.0]
    )
    raw = step_gae(batch, 1.0, 1.0).advantages
    # Each trajectory once: mean 1/2, so success and failure lie equally far from it.
    assert normalize(raw, batch, weights="trajectories").tolist() == pytest.approx(
        [-1.0] * 9 + [1.0]
    )
    assert normalize(raw, batch)[-1] == pytest.approx(3.0)


@pytest.mark.parametrize("estimator", [grpo, dr_grpo, rloo, reinforce_pp_baseline])
def test_stopping_early_is_no_disadvantage_at_equal_returns(
    estimator: Callable[[StepBatch], Credit],
) -> None:
    """Peer 8: a baseline for each turn index is biased when the policy chooses when to stop.

    By turn index the second step of "long" would be compared with nobody, and its first with the
    whole reward of "short": returns are compared whole, so that equal ones are equal.
    """
    batch = StepBatch.from_arrays(
        trajectory=["long", "long", "short"],
        step=[0, 1, 0],
        reward=[0.5, 0.5, 1.0],
        group={"long": "g", "short": "g"},
    )
    assert estimator(batch).advantages.tolist() == [0.0, 0.0, 0.0]


def test_the_baseline_of_a_group_estimator_does_not_depend_on_the_step_index() -> None:
    """Peer 8, the other way round: every step of a trajectory has the whole return's advantage."""
    batch = StepBatch.from_arrays(
        trajectory=["long", "long", "long", "short"],
        step=[0, 1, 2, 0],
        reward=[1.0, 1.0, 1.0, 1.0],
        group={"long": "g", "short": "g"},
    )
    assert dr_grpo(batch).advantages.tolist() == [1.0, 1.0, 1.0, -1.0]
