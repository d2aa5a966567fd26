"""StepBatch: rows in any order, checked, and read from recorded trajectories."""

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_env import make
from steppo_env.credit import StepBatch, broadcast, monte_carlo, step_gae
from steppo_env.errors import InvalidInput
from steppo_env.mdp import ParentStep, Step, StopReason, Trajectory
from tests.steppo_env.credit.conftest import ANY_SPEED, Rows, assert_close, ragged


@ANY_SPEED
@given(ragged())
def test_rows_come_out_in_trajectory_and_step_order(rows: Rows) -> None:
    batch = rows.batch()
    names = sorted(set(rows.trajectory))
    place = {cell: row for row, cell in enumerate(zip(rows.trajectory, rows.step))}
    order = [place[name, at] for name in names for at in range(rows.trajectory.count(name))]
    assert batch.order.tolist() == order
    assert batch.trajectory_ids.tolist() == names
    assert (batch.num_steps, batch.num_trajectories) == (len(order), len(names))
    assert batch.offsets.tolist()[0] == 0
    assert np.diff(batch.offsets).tolist() == [rows.trajectory.count(name) for name in names]
    assert batch.trajectory.tolist() == [rows.trajectory[row] for row in order]
    assert batch.step.tolist() == [rows.step[row] for row in order]
    assert_close(batch.reward, [rows.step_reward(row) for row in order], rows.magnitude)
    assert batch.value is not None
    assert batch.value.tolist() == [rows.value[row] for row in order]
    assert batch.anchor is not None
    assert batch.anchor.tolist() == [rows.anchor[row] for row in order]
    assert batch.response_length is not None
    assert batch.response_length.tolist() == [rows.response_length[row] for row in order]
    assert batch.terminated.tolist() == [rows.terminated[name] for name in names]
    assert batch.bootstrap_value.tolist() == [rows.bootstrap_value[name] for name in names]
    assert batch.group is not None
    together = [[rows.group[a] == rows.group[b] for b in names] for a in names]
    assert [[a == b for b in batch.group] for a in batch.group] == together


def test_integer_ids_are_sorted_as_numbers() -> None:
    batch = StepBatch.from_arrays(trajectory=[10, 9, 10], step=[1, 0, 0], reward=[1, 2, 3])
    assert batch.trajectory_ids.tolist() == [9, 10]
    assert batch.reward.tolist() == [2.0, 3.0, 1.0]
    assert batch.reward.dtype == np.float64


def test_what_is_left_out_is_unknown_and_every_trajectory_terminated() -> None:
    batch = StepBatch.from_arrays(trajectory=["a"], step=[0], reward=[1.0])
    left_out = (batch.value, batch.group, batch.anchor, batch.response_length)
    assert left_out == (None,) * 4
    assert batch.terminated.tolist() == [True]
    assert math.isnan(batch.bootstrap_value[0])


def test_rewards_on_tokens_are_part_of_the_step_reward() -> None:
    batch = StepBatch.from_arrays(
        trajectory=["a", "a"],
        step=[1, 0],
        reward=[1.0, 0.0],
        response_length=[2, 3],
        token_reward=[[-0.25, -0.25], [-0.5, 0.0, -0.5]],
    )
    assert batch.reward.tolist() == [-1.0, 0.5]


def test_a_batch_keeps_its_own_numbers() -> None:
    reward, value = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    batch = StepBatch.from_arrays(trajectory=["a", "a"], step=[0, 1], reward=reward, value=value)
    reward[:], value[:] = 99.0, 99.0
    assert batch.reward.tolist() == [1.0, 2.0]
    assert batch.value is not None
    assert batch.value.tolist() == [3.0, 4.0]


def test_numpy_arrays_and_lists_are_the_same() -> None:
    batch = StepBatch.from_arrays(
        trajectory=np.array(["b", "a", "b"]),
        step=np.array([1, 0, 0], dtype=np.int32),
        reward=np.array([1, 2, 3], dtype=np.float32),
    )
    assert batch.trajectory_ids.tolist() == ["a", "b"]
    assert batch.order.tolist() == [1, 2, 0]


# What is refused. The good batch: alpha has three steps, bravo two.

GOOD: dict[str, Any] = {
    "trajectory": ["alpha", "bravo", "alpha", "bravo", "alpha"],
    "step": [0, 0, 1, 1, 2],
    "reward": [0.0, 0.0, 0.0, 0.0, 1.0],
    "value": [0.5] * 5,
    "terminated": {"alpha": True, "bravo": False},
    "bootstrap_value": {"alpha": 0.0, "bravo": 0.5},
    "group": {"alpha": "g", "bravo": "g"},
    "anchor": ["x", "x", "y", "y", "z"],
    "response_length": [1, 2, 1, 2, 1],
    "token_value": [[0.5], [0.5, 0.5], [0.5], [0.5, 0.5], [0.5]],
    "token_reward": [[0.0], [0.0, 0.0], [0.0], [0.0, 0.0], [0.0]],
    "forks": {("alpha", 0): [[1.0]], ("bravo", 1): [[0.0, 1.0], [0.0]]},
}


def refusal(**changed: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        StepBatch.from_arrays(**{**GOOD, **changed})
    return str(caught.value)


def test_the_good_batch_is_good() -> None:
    assert StepBatch.from_arrays(**GOOD).num_steps == 5


@pytest.mark.parametrize(
    "steps",
    [
        [0, 0, 1, 2, 2],  # a gap
        [0, 1, 1, 2, 2],  # not from 0
        [0, 0, 1, 0, 2],  # a duplicate
        [0, 1, 1, 1, 2],
        [0, -1, 1, 0, 2],
        [0, 0, 1, 2**40, 2],
    ],
)
def test_gaps_and_duplicates_name_the_trajectory(steps: list[int]) -> None:
    message = refusal(step=steps)
    assert "bravo" in message
    assert "alpha" not in message


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "argument", ["reward", "value", "token_value", "token_reward", "bootstrap_value", "forks"]
)
def test_a_number_that_is_not_finite_names_argument_and_trajectory(
    argument: str, bad: float
) -> None:
    changed: dict[str, Any] = {
        "reward": [0.0, 0.0, 0.0, bad, 1.0],
        "value": [0.5, 0.5, 0.5, bad, 0.5],
        "token_value": [[0.5], [0.5, 0.5], [0.5], [0.5, bad], [0.5]],
        "token_reward": [[0.0], [bad, 0.0], [0.0], [0.0, 0.0], [0.0]],
        "bootstrap_value": {"alpha": 0.0, "bravo": bad},
        "forks": {("alpha", 0): [[1.0]], ("bravo", 1): [[0.0, bad], [0.0]]},
    }
    message = refusal(**{argument: changed[argument]})
    assert "bravo" in message
    assert "alpha" not in message
    assert {"forks": "continuation"}.get(argument, argument) in message


@pytest.mark.parametrize(
    "argument",
    [
        "trajectory",
        "step",
        "reward",
        "value",
        "anchor",
        "response_length",
        "token_value",
        "token_reward",
    ],
)
@pytest.mark.parametrize("is_longer", [True, False])
def test_a_wrong_length_names_the_argument(argument: str, is_longer: bool) -> None:
    given_ = GOOD[argument]
    message = refusal(**{argument: [*given_, given_[-1]] if is_longer else given_[:-1]})
    # With a wrong number of ids it is the next argument that does not fit.
    assert argument == "trajectory" or argument in message


@pytest.mark.parametrize("argument", ["reward", "value"])
def test_a_padded_table_is_refused(argument: str) -> None:
    assert argument in refusal(**{argument: [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]})


@pytest.mark.parametrize("argument", ["token_value", "token_reward"])
@pytest.mark.parametrize("tokens", [[], [0.0], [0.0] * 3, [[0.0, 0.0]]])
def test_tokens_that_are_not_as_many_as_the_response_has_name_the_trajectory(
    argument: str, tokens: list[float]
) -> None:
    rows = list(GOOD[argument])
    rows[3] = tokens
    message = refusal(**{argument: rows})
    assert "bravo" in message
    assert argument in message


@pytest.mark.parametrize("argument", ["token_value", "token_reward"])
def test_token_arguments_need_response_lengths(argument: str) -> None:
    other = {"token_value", "token_reward"} - {argument}
    assert "response_length" in refusal(response_length=None, **dict.fromkeys(other))


@pytest.mark.parametrize("argument", ["terminated", "group"])
def test_a_mapping_that_misses_a_trajectory_names_it(argument: str) -> None:
    message = refusal(**{argument: {"alpha": GOOD[argument]["alpha"]}})
    assert "bravo" in message
    assert argument in message


@pytest.mark.parametrize("argument", ["terminated", "group", "bootstrap_value"])
def test_a_mapping_that_names_an_unknown_trajectory_names_it(argument: str) -> None:
    message = refusal(**{argument: GOOD[argument] | {"charlie": GOOD[argument]["alpha"]}})
    assert "charlie" in message
    assert argument in message


def test_ids_of_another_type_are_unknown() -> None:
    with pytest.raises(InvalidInput, match="terminated"):
        StepBatch.from_arrays(trajectory=[1], step=[0], reward=[0.0], terminated={"1": True})


@pytest.mark.parametrize("flag", [None, "yes", 0.5, 2])
def test_terminated_is_true_or_false(flag: object) -> None:
    assert "bravo" in refusal(terminated={"alpha": True, "bravo": flag})


@pytest.mark.parametrize("lengths", [[1, 2, 1, 0, 1], [1, 2, 1, -2, 1]])
def test_an_empty_response_names_the_trajectory(lengths: list[int]) -> None:
    message = refusal(response_length=lengths, token_value=None, token_reward=None)
    assert "bravo" in message
    assert "alpha" not in message


@pytest.mark.parametrize("kind", [float, bool, str, np.float64])
@pytest.mark.parametrize("argument", ["step", "response_length"])
def test_indices_and_lengths_are_integers(argument: str, kind: type) -> None:
    two = {"trajectory": ["alpha", "alpha"], "reward": [0.0, 0.0]}
    columns: dict[str, list[int]] = {"step": [0, 1], "response_length": [1, 1]}
    columns[argument] = [kind(each) for each in columns[argument]]
    with pytest.raises(InvalidInput, match=argument):
        StepBatch.from_arrays(**two, **columns)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=argument):
        StepBatch.from_arrays(
            **two,  # type: ignore[arg-type]
            **columns | {argument: np.array(columns[argument])},  # type: ignore[arg-type]
        )


def test_one_float_among_the_integers_is_refused() -> None:
    assert "step" in refusal(step=[0, 0, 1, 1, 2.0])


@pytest.mark.parametrize("ids", [["a", 1], [1, "a"], [1.0, 2.0], [None, None], [["a"], ["b"]]])
def test_ids_are_all_strings_or_all_integers(ids: list[Any]) -> None:
    with pytest.raises(InvalidInput, match="trajectory"):
        StepBatch.from_arrays(trajectory=ids, step=[0, 0], reward=[0.0, 0.0])


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one"):
        StepBatch.from_arrays(trajectory=[], step=[], reward=[])
    with pytest.raises(InvalidInput, match="at least one"):
        StepBatch.from_trajectories([])


@pytest.mark.parametrize("cell", [("charlie", 0), ("bravo", 2), ("bravo", -1), ("bravo", 0.5)])
def test_forks_of_a_step_that_is_not_there_are_refused(cell: tuple[str, float]) -> None:
    assert cell[0] in refusal(forks={cell: [[1.0]]})


def test_a_continuation_without_rewards_names_the_trajectory() -> None:
    assert "bravo" in refusal(forks={("bravo", 0): [[]]})


@pytest.mark.parametrize("argument", ["reward", "value"])
@pytest.mark.parametrize("junk", ["1.0", None, {}])
def test_what_is_no_number_is_refused(argument: str, junk: object) -> None:
    assert argument in refusal(**{argument: [0.0, 0.0, junk, 0.0, 0.0]})


# Recorded trajectories.


def play(
    index: int,
    *,
    wander: int = 0,
    step_limit: int = 24,
    tokens: bool = True,
    name: str | None = None,
) -> Trajectory:
    """Play KeyDoor: `wander` moves to the north first, then the expert's."""
    env = make("steppo/KeyDoor-v0", step_limit=step_limit)
    observation = env.start(f"train/{index}", seed=index)
    steps: list[Step] = []
    while not env.has_ended:
        expert = env.expert()
        assert expert is not None
        text = "<act> go north </act>" if len(steps) < wander else expert.content
        outcome = env.advance(text)
        steps.append(
            Step(
                step_index=len(steps),
                messages=observation.messages,
                response_text=text,
                reward=outcome.reward,
                reward_terms=outcome.reward_terms,
                terminated=outcome.terminated,
                truncated=outcome.truncated,
                state_key=observation.state_key,
                trace_key=env.trace_key,
                info=outcome.info,
                prompt_ids=(1,) if tokens else None,
                response_ids=tuple(text.encode()) if tokens else None,
            )
        )
        observation = outcome.observation
    return Trajectory(
        trajectory_id=name or f"keydoor-{index}",
        group_id=f"group-{index % 2}",
        env_id="steppo/KeyDoor-v0",
        task_id=f"train/{index}",
        split="train",
        seed=index,
        policy="expert",
        steps=tuple(steps),
        stop_reason=StopReason.TERMINATED if env.has_terminated else StopReason.STEP_LIMIT,
    )


EPISODES = [play(index) for index in range(4)] + [play(4, wander=3, step_limit=3)]


def test_episodes_of_keydoor_come_back_whole_and_in_input_order() -> None:
    shuffled = [EPISODES[at] for at in (3, 0, 4, 2, 1)]
    batch = StepBatch.from_trajectories(shuffled)
    assert batch.num_trajectories == 5
    assert batch.trajectory_ids.tolist() == [each.trajectory_id for each in EPISODES]
    assert np.diff(batch.offsets).tolist() == [len(each.steps) for each in EPISODES]
    steps = [step for each in EPISODES for step in each.steps]
    assert batch.reward.tolist() == [step.reward for step in steps]
    assert sum(batch.reward) == 4.0
    assert batch.anchor is not None
    assert batch.anchor.tolist() == [step.state_key for step in steps]
    assert batch.response_length is not None
    assert batch.response_length.tolist() == [len(step.response_text) for step in steps]
    assert batch.terminated.tolist() == [True] * 4 + [False]
    assert batch.group is not None
    assert (batch.group == batch.group[0]).tolist() == [True, False, True, False, True]
    # The environment knows what is left when its own clock runs out.
    assert batch.bootstrap_value[4] == 0.0
    credit = broadcast(batch)
    by_row = [each.return_ for each in shuffled for _ in each.steps]
    assert credit.advantages.tolist() == by_row
    assert credit.counts["num_truncated_without_bootstrap"] == 0


def test_values_are_given_by_trajectory() -> None:
    rng = random.Random(2)
    value = {each.trajectory_id: [rng.random() for _ in each.steps] for each in EPISODES}
    batch = StepBatch.from_trajectories(EPISODES, value=value)
    assert batch.value is not None
    assert batch.value.tolist() == [v for each in EPISODES for v in value[each.trajectory_id]]
    flat = [v for each in EPISODES for v in value[each.trajectory_id]]
    to_go = [1.0 if each.terminated else 0.0 for each in EPISODES for _ in each.steps]
    assert_close(step_gae(batch, 1.0, 1.0).advantages, [g - v for g, v in zip(to_go, flat)])


def test_the_callers_bootstrap_value_comes_before_the_environments() -> None:
    cut = EPISODES[4]
    batch = StepBatch.from_trajectories([cut], bootstrap_value={cut.trajectory_id: 0.75})
    assert batch.bootstrap_value.tolist() == [0.75]
    silent = replace(cut, steps=tuple(replace(step, info={}) for step in cut.steps))
    assert math.isnan(StepBatch.from_trajectories([silent]).bootstrap_value[0])
    with pytest.raises(InvalidInput, match=r"keydoor-4"):
        step_gae(StepBatch.from_trajectories([silent]), 1.0, 1.0)


def test_values_of_an_unknown_trajectory_are_refused() -> None:
    value = {each.trajectory_id: [0.0] * len(each.steps) for each in EPISODES}
    with pytest.raises(InvalidInput, match="stranger"):
        StepBatch.from_trajectories(EPISODES, value={**value, "stranger": [0.0]})
    with pytest.raises(InvalidInput, match="stranger"):
        StepBatch.from_trajectories(EPISODES, bootstrap_value={"stranger": 0.0})


@pytest.mark.parametrize("missing", [True, False])
def test_values_that_do_not_fit_name_the_trajectory(missing: bool) -> None:
    value = {each.trajectory_id: [0.0] * len(each.steps) for each in EPISODES}
    if missing:
        del value["keydoor-2"]
    else:
        value["keydoor-2"].append(0.0)
    with pytest.raises(InvalidInput, match="keydoor-2"):
        StepBatch.from_trajectories(EPISODES, value=value)


def test_response_lengths_are_known_when_every_step_has_token_ids() -> None:
    mixed = [EPISODES[0], play(1, tokens=False)]
    assert StepBatch.from_trajectories(mixed).response_length is None


def test_an_empty_response_in_a_recording_names_the_trajectory() -> None:
    first, *rest = EPISODES[1].steps
    silent = replace(EPISODES[1], steps=(replace(first, response_ids=()), *rest))
    with pytest.raises(InvalidInput, match="keydoor-1"):
        StepBatch.from_trajectories([EPISODES[0], silent])


@pytest.mark.parametrize("reason", [each for each in StopReason if each.is_infrastructure])
def test_trajectories_ended_by_infrastructure_are_refused_by_name(reason: StopReason) -> None:
    failed = replace(EPISODES[2], stop_reason=reason)
    with pytest.raises(InvalidInput, match="keydoor-2"):
        StepBatch.from_trajectories([EPISODES[0], failed])


def test_trajectories_without_steps_are_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="keydoor-2"):
        StepBatch.from_trajectories([EPISODES[0], replace(EPISODES[2], steps=())])


def test_a_trajectory_that_stands_twice_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="keydoor-0"):
        StepBatch.from_trajectories([EPISODES[0], EPISODES[1], EPISODES[0]])


def test_a_recording_that_begins_late_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="keydoor-1"):
        StepBatch.from_trajectories([replace(EPISODES[1], steps=EPISODES[1].steps[1:])])


def fork_of(parent: Trajectory, after: int, rewards: list[float], **changed: Any) -> Trajectory:
    """Return a continuation of `parent` after one of its steps, with these rewards."""
    template = parent.steps[0]
    steps = tuple(
        replace(template, step_index=after + 1 + at, reward=reward, info={}, terminated=is_last)
        for at, (reward, is_last) in enumerate(
            zip(rewards, [False] * (len(rewards) - 1) + [True], strict=True)
        )
    )
    defaults: dict[str, Any] = {
        "trajectory_id": f"fork-{after}-{rewards}",
        "steps": steps,
        "parent": ParentStep(parent.trajectory_id, after),
        "stop_reason": StopReason.TERMINATED,
    }
    return replace(parent, **{**defaults, **changed})


def test_forks_value_the_state_after_the_parent_step() -> None:
    parent = EPISODES[0]
    num_steps = len(parent.steps)
    forks = [
        fork_of(parent, after, rewards)
        for after in range(-1, num_steps - 1)
        for rewards in ([0.0, float(after)], [4.0])
    ]
    batch = StepBatch.from_trajectories([parent], forks=forks)
    credit = monte_carlo(batch, gamma=0.5)
    # V(s_t) = (0.5 (t - 1) + 4) / 2 for the forks that go on after step t - 1.
    values = [(0.5 * (t - 1) + 4) / 2 for t in range(num_steps)] + [0.0]
    rewards = [step.reward for step in parent.steps]
    expected = [rewards[t] + 0.5 * values[t + 1] - values[t] for t in range(num_steps)]
    assert_close(credit.advantages, expected)


def test_a_truncated_fork_ends_with_the_value_it_stopped_in() -> None:
    parent = play(0, step_limit=2, wander=2)
    truncated = fork_of(parent, 0, [0.0, 0.0], stop_reason=StopReason.STEP_LIMIT)
    last = replace(truncated.steps[-1], terminated=False, truncated=True)
    known = replace(last, info={"bootstrap_value": 8.0})
    forks = [
        fork_of(parent, -1, [0.0]),
        replace(truncated, steps=(*truncated.steps[:-1], known)),
    ]
    credit = monte_carlo(StepBatch.from_trajectories([parent], forks=forks), gamma=0.5)
    # V(s_1) = 0 + 0.5 * 0 + 0.25 * 8 = 2.
    assert credit.advantages.tolist() == [1.0, -2.0]
    unknown = replace(truncated, steps=(*truncated.steps[:-1], last))
    with pytest.raises(InvalidInput, match="fork-0"):
        StepBatch.from_trajectories([parent], forks=[unknown])


def test_forks_without_a_parent_in_the_batch_are_refused() -> None:
    with pytest.raises(InvalidInput, match="keydoor-1"):
        StepBatch.from_trajectories([EPISODES[0]], forks=[EPISODES[1]])
    with pytest.raises(InvalidInput, match="fork-0"):
        StepBatch.from_trajectories([EPISODES[0]], forks=[fork_of(EPISODES[1], 0, [1.0])])


@ANY_SPEED
@given(st.permutations(range(5)))
def test_the_order_of_the_trajectories_is_the_order_of_the_result(order: list[int]) -> None:
    credit = broadcast(StepBatch.from_trajectories([EPISODES[at] for at in order]))
    expected = [EPISODES[at].return_ for at in order for _ in EPISODES[at].steps]
    assert credit.advantages.tolist() == expected
