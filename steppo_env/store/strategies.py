"""Hypothesis strategies for trajectories that a store must take and give back unchanged."""

import math

from hypothesis import strategies as st
from pydantic import JsonValue

from steppo_env.mdp import (
    Message,
    ParentStep,
    Role,
    Step,
    StopReason,
    Timing,
    ToolCall,
    ToolSpec,
    Trajectory,
    Usage,
)

__all__ = ["json_objects", "steps_ending", "texts", "trajectories"]

MAX_INTEGER = 2**63 - 1
MAX_TOKEN_ID = 2**31 - 1
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", "\0", "a\0b", "\U0010ffff", "\r\n\u2028", "'; DROP TABLE steps; --", "e\u0301"]
)
"""Any Unicode that has a UTF-8 form, NUL included."""

_numbers = st.floats(allow_nan=False, allow_infinity=False)
_rewards = st.floats(-1e6, 1e6)
_json: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | _numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
json_objects: st.SearchStrategy[dict[str, JsonValue]] = st.dictionaries(texts, _json, max_size=3)
"""JSON objects, with integers of any size and nested values."""

_calls = st.builds(ToolCall, texts, json_objects, st.none() | texts)
_messages = st.builds(
    Message,
    st.sampled_from(ROLES),
    texts,
    st.lists(_calls, max_size=2).map(tuple),
    st.none() | texts,
)
_tools = st.builds(ToolSpec, texts, texts, json_objects)
_token_ids = st.lists(st.integers(0, MAX_TOKEN_ID), max_size=5).map(tuple)
_logprobs = st.floats(max_value=0.0, allow_infinity=False, width=32).filter(lambda x: x != -9999.0)
_counts = st.integers(0, MAX_INTEGER)


@st.composite
def steps_ending(
    draw: st.DrawFn, step_index: int, *, terminated: bool = False, truncated: bool = False
) -> Step:
    """Draw the step with an index, and with the flags of how the episode stands after it."""
    terms = draw(st.dictionaries(texts, _rewards, max_size=3))
    has_tokens = draw(st.booleans())
    response_ids = draw(_token_ids) if has_tokens else None
    size = len(response_ids or ())
    logprobs = st.lists(_logprobs, min_size=size, max_size=size).map(tuple)
    return Step(
        step_index=step_index,
        messages=draw(st.lists(_messages, max_size=2).map(tuple)),
        response_text=draw(texts),
        reward=math.fsum(terms.values()),
        reward_terms=terms,
        terminated=terminated,
        truncated=truncated,
        state_key=draw(texts),
        trace_key=draw(texts),
        tool_calls=draw(st.lists(_calls, max_size=2).map(tuple)),
        observation_text=draw(texts),
        info=draw(json_objects),
        prompt_ids=draw(_token_ids) if has_tokens else None,
        response_ids=response_ids,
        response_logprobs=draw(logprobs) if has_tokens else None,
        policy_version_before=draw(st.none() | texts),
        policy_version_after=draw(st.none() | texts),
        model=draw(st.none() | texts),
        temperature=draw(st.none() | _numbers),
        finish_reason=draw(st.none() | texts),
        usage=draw(st.none() | st.builds(Usage, _counts, _counts)),
        timing=draw(st.builds(Timing, _numbers, _numbers, _numbers)),
    )


@st.composite
def trajectories(draw: st.DrawFn, trajectory_id: str | None = None) -> Trajectory:
    """Draw any trajectory that satisfies `steppo_env.store.validation`."""
    stop_reason = draw(st.sampled_from(StopReason))
    terminated = stop_reason is StopReason.TERMINATED
    truncated = not terminated and not stop_reason.is_infrastructure
    num_steps = draw(st.integers(0 if stop_reason.is_infrastructure else 1, 3))
    steps = [draw(steps_ending(index)) for index in range(num_steps - 1)]
    if num_steps:
        last = steps_ending(num_steps - 1, terminated=terminated, truncated=truncated)
        steps.append(draw(last))
    return Trajectory(
        trajectory_id=draw(texts.filter(bool)) if trajectory_id is None else trajectory_id,
        group_id=draw(texts),
        env_id=draw(texts),
        task_id=draw(texts),
        split=draw(texts),
        seed=draw(st.integers(-MAX_INTEGER - 1, MAX_INTEGER)),
        policy=draw(texts),
        steps=tuple(steps),
        stop_reason=stop_reason,
        run_id=draw(st.none() | texts),
        success=draw(st.none() | st.booleans()),
        error=draw(st.none() | texts),
        labels=draw(st.dictionaries(texts, texts | st.integers(), max_size=2)),
        options=draw(json_objects),
        tools=draw(st.lists(_tools, max_size=2).map(tuple)),
        final_messages=draw(st.none() | st.lists(_messages, max_size=2).map(tuple)),
        final_prompt_ids=draw(st.none() | _token_ids),
        parent=draw(st.none() | st.builds(ParentStep, texts, _counts)),
        started_at=draw(_numbers),
        ended_at=draw(_numbers),
    )
