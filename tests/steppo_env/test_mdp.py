"""The nouns of the MDP and what they derive from their fields."""

import math
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from steppo_env.mdp import (
    Action,
    IssueKind,
    Message,
    Observation,
    Outcome,
    ParseIssue,
    Step,
    StopReason,
    Task,
    ToolCall,
    Trajectory,
)

STATE = Observation((Message("user", "go"),), "go", "0" * 32)
STEP = Step(0, (), "r", 1.0, {"goal": 1.0}, False, False, "s", "t")
TRAJECTORY = Trajectory("t", "g", "e", "k", "dev", 0, "p", (STEP,), StopReason.TERMINATED)


@pytest.mark.parametrize("value", [STATE, STEP, TRAJECTORY, Task("a", "dev"), Action("x")])
def test_values_are_frozen_and_pickle(value: object) -> None:
    name = fields(value)[0].name  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, None)
    assert pickle.loads(pickle.dumps(value)) == value


def test_reward_is_the_exact_sum_of_its_terms() -> None:
    assert Outcome(STATE).reward == 0.0
    assert Outcome(STATE, {"a": 0.1, "b": 0.2, "c": -0.3}).reward == math.fsum([0.1, 0.2, -0.3])
    assert Outcome(STATE, dict.fromkeys("abcdefghij", 0.1)).reward == 1.0


def test_return_is_the_exact_sum_of_the_rewards() -> None:
    steps = tuple(replace(STEP, step_index=index, reward=0.1) for index in range(10))
    assert replace(TRAJECTORY, steps=steps).return_ == 1.0
    assert replace(TRAJECTORY, steps=()).return_ == 0.0


def test_rejections_are_the_rejected_issues_only() -> None:
    issues = tuple(ParseIssue(kind, kind.name) for kind in IssueKind)
    assert Action("", issues=issues).rejections == ("REJECTED",)


def test_only_native_calls_stand_in_the_transcript() -> None:
    native, in_text = ToolCall("look", {}, "c1"), ToolCall("look", {})
    message = Action("text", (native, in_text)).to_message()
    assert message == Message("assistant", "text", (native,))


@pytest.mark.parametrize(
    ("reason", "is_infrastructure"),
    [
        (StopReason.TERMINATED, False),
        (StopReason.STEP_LIMIT, False),
        (StopReason.TRUNCATED, False),
        (StopReason.ENV_ERROR, True),
        (StopReason.POLICY_ERROR, True),
        (StopReason.SERVER_ERROR, True),
        (StopReason.DEADLINE, True),
        (StopReason.CANCELLED, True),
    ],
)
def test_failures_of_infrastructure_are_not_trained_on(
    reason: StopReason, is_infrastructure: bool
) -> None:
    assert reason.is_infrastructure is is_infrastructure
    assert replace(TRAJECTORY, stop_reason=reason).trainable is not is_infrastructure
    assert len(StopReason) == 8


@pytest.mark.parametrize("missing", ["prompt_ids", "response_ids", "response_logprobs"])
def test_a_step_is_trainable_with_ids_and_logprobs_only(missing: str) -> None:
    whole = replace(STEP, prompt_ids=(), response_ids=(1,), response_logprobs=(-0.5,))
    assert whole.is_trainable
    nothing: dict[str, Any] = {missing: None}
    assert not replace(whole, **nothing).is_trainable


@pytest.mark.parametrize(("terminated", "truncated"), [(True, False), (False, True)])
def test_the_last_step_says_how_a_trajectory_ended(terminated: bool, truncated: bool) -> None:
    last = replace(STEP, terminated=terminated, truncated=truncated)
    ended = replace(TRAJECTORY, steps=(STEP, last))
    assert (ended.terminated, ended.truncated) == (terminated, truncated)
    again = replace(TRAJECTORY, steps=(last, STEP))
    assert (again.terminated, again.truncated) == (False, False)
    empty = replace(TRAJECTORY, steps=())
    assert (empty.terminated, empty.truncated) == (False, False)
