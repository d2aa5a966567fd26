import itertools
import json
import random
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_client.summary import (
    EnvSummaryReport,
    Result,
    labels_to_json,
    result_of,
    summarize_labels,
    summarize_results,
)
from steppo_env.mdp import Message, Step, StopReason, Trajectory
from steppo_env.metrics import wilson_interval

STATES = {
    StopReason.TERMINATED: (True, False),
    StopReason.STEP_LIMIT: (False, True),
    StopReason.TRUNCATED: (False, True),
}


def trajectory(
    number: int = 0,
    *,
    env_id: str = "e",
    task_id: str = "t",
    reason: StopReason = StopReason.TERMINATED,
    rewards: tuple[float, ...] = (1.0,),
    success: bool = False,
    **info: float,
) -> Trajectory:
    terminated, truncated = STATES.get(reason, (False, False))
    last = len(rewards) - 1
    steps = tuple(
        Step(
            step_index=index,
            messages=(Message("user", f"state {index}"),),
            response_text=f"go {index}",
            reward=reward,
            reward_terms={"goal": reward},
            terminated=terminated and index == last,
            truncated=truncated and index == last,
            state_key="s",
            trace_key=f"{number}",
            info={"num_rejected": index, **(info if index == last else {})},
        )
        for index, reward in enumerate(rewards)
    )
    return Trajectory(
        trajectory_id=f"id{number}",
        group_id=f"{env_id}/{task_id}",
        env_id=env_id,
        task_id=task_id,
        split="dev",
        seed=0,
        policy="p",
        steps=steps,
        stop_reason=reason,
        success=success if reason in STATES else None,
    )


def report(*trajectories: Trajectory) -> EnvSummaryReport:
    (found,) = summarize_results(map(result_of, trajectories)).values()
    return found


TRAJECTORIES = st.builds(
    trajectory,
    st.integers(0, 10**6),
    task_id=st.sampled_from("abc"),
    reason=st.sampled_from(StopReason),
    rewards=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=4).map(tuple),
    success=st.booleans(),
)


@given(st.lists(TRAJECTORIES, min_size=1, max_size=12))
def test_numbers_are_those_of_counting_by_hand(found: list[Trajectory]) -> None:
    made = report(*found)
    counted = [item for item in found if item.stop_reason in STATES]
    solved = [item for item in counted if item.success]

    assert made.episodes == len(found)
    assert made.failed == len(found) - len(counted)
    assert made.steps == sum(len(item.steps) for item in found)
    assert made.terminated == sum(item.stop_reason == StopReason.TERMINATED for item in found)
    assert made.truncated == len(counted) - made.terminated
    assert sum(made.failures.values()) == made.failed
    assert made.success_ci95 == wilson_interval(len(solved), len(counted))
    if counted:
        assert made.success_rate == len(solved) / len(counted)
        assert made.mean_return == pytest.approx(
            fmean(sum(step.reward for step in item.steps) for item in counted)
        )
        assert made.mean_steps == pytest.approx(fmean(len(item.steps) for item in counted))
    else:
        assert (made.success_rate, made.mean_return, made.mean_steps) == (None, None, None)


@given(st.lists(TRAJECTORIES, min_size=1, max_size=10))
def test_pass_at_k_and_pass_hat_k_are_shares_of_draws(found: list[Trajectory]) -> None:
    groups: dict[str, list[bool]] = {}
    for item in found:
        if item.trainable:
            groups.setdefault(item.task_id, []).append(item.success is True)
    expected: dict[str, dict[str, float]] = {"any": {}, "all": {}}
    for k in (1, 2, 4, 8):
        draws = [
            list(itertools.combinations(group, k)) for group in groups.values() if len(group) >= k
        ]
        if draws:
            for name, holds in (("any", any), ("all", all)):
                expected[name][str(k)] = fmean(fmean(map(holds, each)) for each in draws)

    made = report(*found)
    assert made.pass_at_k == pytest.approx(expected["any"])
    assert made.pass_hat_k == pytest.approx(expected["all"])


def returning(returns: dict[str, list[float]]) -> list[Trajectory]:
    """Make one trajectory for each return of each task."""
    tasks = [task_id for task_id, found in returns.items() for _ in found]
    rewards = [reward for found in returns.values() for reward in found]
    return [
        trajectory(number, task_id=task_id, rewards=(reward,))
        for number, (task_id, reward) in enumerate(zip(tasks, rewards))
    ]


def test_the_interval_of_the_return_resamples_whole_tasks() -> None:
    # Of 4 draws from 4 tasks at 0, 0, 1, 1 none is at 1 with chance 1/16, more than 2.5%.
    spread = report(*returning({"a": [0.0] * 9, "b": [0.0] * 9, "c": [1.0] * 9, "d": [1.0] * 9}))
    assert spread.mean_return_ci95 == (0.0, 1.0)
    # The same returns, alike in every task: each mean is 0.5, and tasks do not differ.
    alike = report(*returning({"a": [0.0, 1.0] * 9, "b": [0.0, 1.0] * 9}))
    assert alike.mean_return_ci95 == (0.5, 0.5)


def test_one_task_does_not_say_how_tasks_differ() -> None:
    failed = trajectory(9, task_id="b", reason=StopReason.ENV_ERROR)
    assert report(*returning({"a": [0.0, 1.0]}), failed).mean_return_ci95 is None
    assert report(failed).mean_return_ci95 is None


def test_a_return_beyond_all_bounds_costs_the_interval_and_not_the_report() -> None:
    made = report(*returning({"a": [1e200], "b": [0.0]}))
    assert (made.mean_return, made.mean_return_ci95) == (5e199, None)


@given(st.lists(TRAJECTORIES, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_report_does_not_depend_on_the_order_in_which_episodes_end(
    found: list[Trajectory], shuffler: random.Random
) -> None:
    shuffled = list(found)
    shuffler.shuffle(shuffled)
    made, again = report(*found), report(*shuffled)

    assert made.mean_return_ci95 == again.mean_return_ci95
    if made.mean_return_ci95 is not None and made.mean_return is not None:
        low, high = made.mean_return_ci95
        returns = [item.return_ for item in found if item.trainable]
        assert min(returns) <= low <= made.mean_return <= high <= max(returns)


def test_a_failure_is_no_reward_of_zero() -> None:
    made = report(
        trajectory(rewards=(1.0,), success=True),
        trajectory(1, rewards=(0.0, 0.0), reason=StopReason.ENV_ERROR),
        trajectory(2, rewards=(0.0,), reason=StopReason.DEADLINE),
    )

    assert (made.success_rate, made.mean_return, made.mean_steps) == (1.0, 1.0, 1.0)
    assert (made.episodes, made.steps, made.failed) == (3, 4, 2)
    assert made.failures == {"env_error": 1, "deadline": 1}
    assert (made.pass_at_k, made.pass_hat_k) == ({"1": 1.0}, {"1": 1.0})


def test_metrics_are_the_numbers_of_the_last_step() -> None:
    made = report(
        trajectory(rewards=(0.0, 1.0), f1=0.5, success=True, step_limit=1, bootstrap_value=9),
        trajectory(1, rewards=(1.0,), f1=1.0, only=3.0),
    )

    assert made.metrics == {"f1": 0.75, "num_rejected": 0.5, "only": 3.0}


def test_environments_are_reported_in_the_order_in_which_they_come() -> None:
    found = [trajectory(env_id="z"), trajectory(env_id="a"), trajectory(1, env_id="z")]
    made = summarize_results(map(result_of, found))

    assert [(name, item.episodes) for name, item in made.items()] == [("z", 2), ("a", 1)]


def test_a_metric_that_some_episodes_lack_is_counted_as_missing() -> None:
    made = report(
        trajectory(f1=0.5, recall=1.0),
        trajectory(1, f1=1.0),
        trajectory(2, f1=0.0),
        trajectory(3, reason=StopReason.DEADLINE, late=1.0),
    )

    assert made.metrics == {"f1": 0.5, "num_rejected": 0.0, "recall": 1.0}
    assert made.metrics_missing == {"recall": 2}, "an episode that failed lacks nothing"


def test_labels_are_reported_apart_in_the_order_of_their_values() -> None:
    found = [
        replace(trajectory(n, success=n == 10), labels={"hops": n, "id": f"t{n}", "kind": kind})
        for n, kind in zip([*range(9, 12), *range(20, 30)], "ab" * 12)
    ]
    made = report(*found[:3])
    assert list(made.by_label) == ["hops", "id", "kind"]
    assert list(made.by_label["hops"]) == ["9", "10", "11"]
    ten = made.by_label["hops"]["10"]
    assert (ten.episodes, ten.success_rate, ten.mean_return) == (1, 1.0, 1.0)
    assert ten.success_ci95 == wilson_interval(1, 1)
    assert made.by_label["kind"]["a"].episodes == 2

    assert report(*found).by_label.keys() == {"kind"}, "a label of 13 single tasks is left out"


def labelled(number: int, labels: dict[str, str | int], **more: float) -> Trajectory:
    return replace(trajectory(number, **more), labels=labels)  # type: ignore[arg-type]


FOUND = (
    labelled(0, {"dataset": "x", "hops": 10}, f1=0.5),
    labelled(1, {"dataset": "x", "hops": 2}, f1=1.0, success=True),
    labelled(2, {"dataset": "y", "hops": 2}, recall=0.25),
    labelled(3, {"dataset": "x", "hops": 2}, f1=0.5),
    labelled(4, {"dataset": "x"}, f1=0.0),
    replace(labelled(5, {"dataset": "x", "hops": 2}), stop_reason=StopReason.ENV_ERROR),
)


def test_each_value_of_a_label_has_its_means_and_says_what_is_missing() -> None:
    made = summarize_labels(map(result_of, FOUND), ["hops", "hops"])

    assert list(made) == ["hops"]
    assert list(made["hops"]) == ["2", "10"]
    two = made["hops"]["2"]
    assert (two.episodes, two.success_rate, two.mean_return) == (3, 1 / 3, 1.0)
    assert two.metrics == {"f1": 0.75, "num_rejected": 0.0, "recall": 0.25}
    assert two.metrics_missing == {"f1": 1, "recall": 2}
    assert made["hops"]["10"].metrics_missing == {"recall": 1}


def test_two_labels_together_are_reported_by_their_pairs() -> None:
    made = summarize_labels(map(result_of, FOUND), ["dataset+hops", "nothing"])

    assert {value: row.episodes for value, row in made["dataset+hops"].items()} == {
        "x, 2": 2,
        "x, 10": 1,
        "y, 2": 1,
    }
    assert list(made["dataset+hops"]) == ["x, 2", "x, 10", "y, 2"]
    assert "nothing" not in made


def test_a_label_that_is_asked_for_may_have_many_values() -> None:
    found = [labelled(n, {"id": n, "kind": "a"}) for n in range(40)]

    assert summarize_labels(map(result_of, found)).keys() == {"kind"}
    assert len(summarize_labels(map(result_of, found), ["id"])["id"]) == 40


def test_labels_as_json_have_every_number() -> None:
    made = labels_to_json(summarize_labels(map(result_of, FOUND[:1]), ["hops"]))

    assert json.loads(json.dumps(made)) == {
        "hops": {
            "10": {
                "episodes": 1,
                "success_rate": 0.0,
                "success_ci95": list(wilson_interval(0, 1)),
                "mean_return": 1.0,
                "metrics": {"f1": 0.5, "num_rejected": 0.0},
                "metrics_missing": {},
            }
        }
    }


@given(st.lists(TRAJECTORIES, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_digest_does_not_depend_on_order_or_names(
    found: list[Trajectory], shuffler: random.Random
) -> None:
    renamed = [
        replace(item, trajectory_id="x", group_id="y", run_id="z", policy="q", started_at=5.0)
        for item in found
    ]
    shuffler.shuffle(renamed)

    assert report(*found).digest == report(*renamed).digest


@pytest.mark.parametrize(
    "changes",
    [
        {"reward": 0.5, "reward_terms": {"goal": 0.5}},
        {"response_text": "other"},
        {"trace_key": "other"},
        {"observation_text": "other"},
        {"messages": (Message("user", "other"),)},
        {"info": {"num_rejected": 7}},
    ],
)
def test_the_digest_differs_where_any_step_differs(changes: dict[str, object]) -> None:
    found = [trajectory(number, rewards=(0.0, 1.0)) for number in range(3)]
    steps = (replace(found[1].steps[0], **changes), found[1].steps[1])  # type: ignore[arg-type]

    assert (
        report(*found).digest != report(found[0], replace(found[1], steps=steps), found[2]).digest
    )
    assert report(*found).digest != report(*found[:2]).digest
    assert report(*found).digest != report(*found, found[0]).digest
    failed = trajectory(9, reason=StopReason.DEADLINE)
    assert report(*found).digest != report(*found, failed).digest


def test_a_result_says_what_failed() -> None:
    failed = replace(trajectory(reason=StopReason.POLICY_ERROR), error="no key")
    made: Result = result_of(failed)

    assert (made.failure, made.error) == ("policy_error", "no key")
    assert result_of(trajectory()).failure is None


def test_the_json_form_has_every_field() -> None:
    made = report(trajectory(success=True))
    document = made.to_json()

    assert document.keys() == set(EnvSummaryReport.__dataclass_fields__)
    assert (document["episodes"], document["success_rate"]) == (1, 1.0)
    assert document["success_ci95"] == list(wilson_interval(1, 1))
    assert document["mean_return_ci95"] is None
    assert document["pass_hat_k"] == {"1": 1.0}

    two = report(*returning({"a": [0.0], "b": [1.0]})).to_json()
    assert two["mean_return_ci95"] == [0.0, 1.0]
