"""Each claim that a trajectory must satisfy, broken once."""

from dataclasses import replace
from typing import cast

import pytest
from pydantic import JsonValue

from steppo_env.errors import InvalidInput
from steppo_env.mdp import (
    Message,
    ParentStep,
    StopReason,
    Timing,
    ToolCall,
    Trajectory,
    Usage,
)
from steppo_env.store.codec import encode_trajectory
from steppo_env.store.samples import make_step, make_trajectory

NAN, INF = float("nan"), float("inf")
BYTES = cast(dict[str, JsonValue], {"x": b"1"})
BASE = make_trajectory("t-1", num_steps=3, num_tokens=2)


def with_step(index: int, **fields: object) -> Trajectory:
    steps = list(BASE.steps)
    steps[index] = replace(steps[index], **fields)  # type: ignore[arg-type]
    return replace(BASE, steps=tuple(steps))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt_ids": None}, "come together or not at all; missing: prompt_ids"),
        (
            {"response_ids": None, "response_logprobs": None},
            "missing: response_ids, response_logprobs",
        ),
        ({"response_ids": (1, 2, 3)}, "got 3 ids and 2 log-probabilities"),
        ({"response_logprobs": (-0.5, NAN)}, "got nan at position 1"),
        ({"response_logprobs": (-INF, -0.5)}, "got -inf at position 0"),
        ({"response_logprobs": (-1e39, -0.5)}, r"got -1e\+39 at position 0"),
        ({"response_logprobs": (-0.5, -9999.0)}, "placeholder -9999; got -9999.0 at position 1"),
        ({"response_logprobs": (0.001, -0.5)}, "got 0.001 at position 0"),
        ({"prompt_ids": (5, -1)}, "got -1 at position 1"),
        ({"response_ids": (2**31, 0)}, "got 2147483648 at position 0"),
        ({"reward": 0.5}, "must be the sum of its terms, 0.0; got 0.5"),
        ({"reward": 1.0, "reward_terms": {"a": 0.4, "b": 0.5}}, "terms, 0.9; got 1.0"),
        ({"reward": 2e-9}, "must be the sum of its terms"),
        ({"reward": NAN}, "reward must be a finite number; got nan"),
        ({"reward_terms": {"a": INF, "b": -INF}}, "term 'a' must be a finite number; got inf"),
        ({"reward_terms": {"a": 1.7e308, "b": 1.7e308}}, "their sum must be a finite number"),
        ({"temperature": INF}, "temperature must be a finite number"),
        ({"timing": Timing(environment_s=NAN)}, "timing.environment_s must be a finite"),
        ({"usage": Usage(-1, 0)}, "usage.prompt_tokens must be an integer from 0"),
        ({"usage": Usage(0, 2**63)}, "got 9223372036854775808"),
        ({"terminated": True}, "only the last step .* 1 more steps follow"),
        ({"truncated": True}, "only the last step"),
        ({"step_index": 0}, "expected 1, got 0"),
        ({"response_text": "a\ud800b"}, r"response_text must be Unicode text; character 1 .*D800"),
        ({"info": {"x": "\udfff"}}, "info must be Unicode text"),
        ({"info": {"x": [1, {"y": NAN}]}}, "info must be a JSON value"),
        ({"info": {"x": [1, {"y": {1, 2}}]}}, r"info\.x\[1\]\.y must be a JSON value .* got set"),
        ({"info": {"x": {1: "a", "1": "b"}}}, r"info\.x: a JSON key is a string; got 1"),
        ({"messages": (Message("user", "\ud800"),)}, "messages must be Unicode text"),
        ({"tool_calls": (ToolCall("f", BYTES),)}, r"tool_calls\[0\]\.arguments\.x"),
    ],
)
def test_a_step_that_contradicts_itself_is_refused_by_trajectory_and_step(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInput, match=f"(?s)^trajectory 't-1', step 1: .*{message}"):
        encode_trajectory(with_step(1, **fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trajectory_id": ""}, "needs a trajectory_id"),
        ({"trajectory_id": "a\ud800"}, "a trajectory_id must be Unicode text"),
        ({"seed": 2**63}, "'t-1': seed must be an integer"),
        ({"seed": -(2**63) - 1}, "'t-1': seed must be an integer"),
        ({"seed": 10**5000}, "got one of 16610 bits"),
        ({"started_at": NAN}, "'t-1': started_at must be a finite number"),
        ({"ended_at": INF}, "'t-1': ended_at must be a finite number"),
        ({"final_prompt_ids": (-1,)}, "'t-1': final_prompt_ids: token ids"),
        ({"parent": ParentStep("x", -1)}, "'t-1': parent.step_index"),
        ({"error": "\ud800"}, "'t-1': error must be Unicode text"),
        ({"labels": {"x": {1}}}, r"'t-1': labels\.x must be a JSON value"),
        ({"options": {"x": 10**5000}}, "'t-1': options must be a JSON value"),
    ],
)
def test_a_trajectory_that_cannot_be_kept_is_refused(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        encode_trajectory(replace(BASE, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stop_reason", "terminated", "truncated", "agrees"),
    [
        (StopReason.TERMINATED, True, False, True),
        (StopReason.TERMINATED, True, True, True),
        (StopReason.TERMINATED, False, True, False),
        (StopReason.TERMINATED, False, False, False),
        (StopReason.STEP_LIMIT, False, True, True),
        (StopReason.STEP_LIMIT, True, True, False),
        (StopReason.STEP_LIMIT, True, False, False),
        (StopReason.STEP_LIMIT, False, False, False),
        (StopReason.TRUNCATED, False, True, True),
        (StopReason.TRUNCATED, True, False, False),
        (StopReason.ENV_ERROR, False, False, True),
        (StopReason.ENV_ERROR, True, False, False),
        (StopReason.CANCELLED, False, True, False),
    ],
)
def test_the_last_flags_must_say_what_the_stop_reason_says(
    stop_reason: StopReason, terminated: bool, truncated: bool, agrees: bool
) -> None:
    last = replace(make_step(0), terminated=terminated, truncated=truncated)
    trajectory = replace(BASE, steps=(last,), stop_reason=stop_reason)
    if agrees:
        encode_trajectory(trajectory)
    else:
        with pytest.raises(InvalidInput, match=f"stop_reason '{stop_reason}' needs a last step"):
            encode_trajectory(trajectory)


def test_only_infrastructure_may_end_an_episode_without_steps() -> None:
    with pytest.raises(InvalidInput, match="needs a last step that is terminated; got no steps"):
        encode_trajectory(replace(BASE, steps=()))
    row, steps = encode_trajectory(replace(BASE, steps=(), stop_reason=StopReason.POLICY_ERROR))
    assert (row["num_steps"], row["return_"], row["trainable"], steps) == (0, 0.0, False, [])


@pytest.mark.parametrize(
    "fields",
    [
        {"response_logprobs": (0.0, 1e-4 - 1e-9)},
        {"response_ids": (), "response_logprobs": (), "prompt_ids": ()},
        {"response_ids": (0, 2**31 - 1)},
        {"reward": 0.3, "reward_terms": {"a": 0.1, "b": 0.2}},
        {"reward": 1e12 + 1.0, "reward_terms": {"a": 1e12}},
    ],
)
def test_what_only_rounding_or_emptiness_sets_apart_is_accepted(fields: dict[str, object]) -> None:
    encode_trajectory(with_step(1, **fields))


def test_nesting_too_deep_for_json_is_refused() -> None:
    nested: JsonValue = None
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(InvalidInput, match="options must be a JSON value"):
        encode_trajectory(replace(BASE, options={"x": nested}))
