"""A transcript is everything that environment and policy determined, and nothing else."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given

from steppo_env.errors import InvalidInput
from steppo_env.mdp import (
    Message,
    ParentStep,
    Step,
    StopReason,
    Timing,
    ToolCall,
    ToolSpec,
    Trajectory,
    Usage,
)
from steppo_env.store import digest_of, fingerprint, strategies, transcript
from steppo_env.store.samples import make_step, make_trajectory

STEP = replace(
    make_step(0, reward=1, num_tokens=1),
    terminated=True,
    messages=(
        Message("assistant", "", (ToolCall("f", {"x": 1}, "call_9z"),)),
        Message("tool", "é", tool_call_id="call_9z"),
    ),
    response_logprobs=(-0.1,),
)
TRAJECTORY = make_trajectory("t", steps=(STEP,), success=True)


def test_the_bytes_are_these() -> None:
    assert transcript(TRAJECTORY) == (
        b'{"error":null,"final_messages":null,'
        b'"final_prompt_ids":null,"labels":{},"seed":7,"split":"train","steps":['
        b'{"finish_reason":null,"info":{},"messages":['
        b'{"answers":null,"content":"","role":"assistant","tool_calls":'
        b'[{"arguments":{"x":1},"call":0,"name":"f"}]},'
        b'{"answers":0,"content":"\\u00e9","role":"tool","tool_calls":[]}],'
        b'"model":null,"observation_text":"","prompt_ids":[0],"response_ids":[0],'
        b'"response_logprobs":[-0.10000000149011612],"response_text":"response 0","reward":1.0,'
        b'"reward_terms":{"goal":1.0},"state_key":"state-0","step_index":0,"temperature":null,'
        b'"terminated":true,"tool_calls":[],"trace_key":"trace-0","truncated":false,"usage":null'
        b'}],"stop_reason":"terminated","success":true,"task_id":"train/0","tools":[]}'
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"trajectory_id": "other"},
        {"group_id": "other"},
        {"run_id": "other"},
        {"policy": "other"},
        {"env_id": "a-named-variant"},
        {"options": {"x": 1}},
        {"parent": ParentStep("other", 3)},
        {"started_at": 1.0, "ended_at": 2.0},
    ],
)
def test_ids_names_and_clocks_are_left_out(fields: Mapping[str, object]) -> None:
    assert transcript(replace(TRAJECTORY, **fields)) == transcript(TRAJECTORY)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"timing": Timing(1.0, 2.0, 3.0)},
        {"policy_version_before": "v2", "policy_version_after": "v3"},
        {"reward": 1.0},
        {"response_logprobs": (-0.10000000149011612,)},
        {
            "messages": (
                Message("assistant", "", (ToolCall("f", {"x": 1}, "other"),)),
                Message("tool", "é", tool_call_id="other"),
            )
        },
    ],
)
def test_timings_versions_and_drawn_call_ids_of_a_step_are_left_out(
    fields: Mapping[str, object],
) -> None:
    step = replace(STEP, **fields)  # type: ignore[arg-type]
    assert transcript(replace(TRAJECTORY, steps=(step,))) == transcript(TRAJECTORY)


@pytest.mark.parametrize(
    "fields",
    [
        {"task_id": "other"},
        {"split": "dev"},
        {"seed": 8},
        {"labels": {"hops": 2}},
        {"tools": (ToolSpec("f", "", {}),)},
        {"stop_reason": StopReason.ENV_ERROR},
        {"success": None},
        {"error": "it broke"},
        {"final_messages": ()},
        {"final_prompt_ids": (1,)},
        {"steps": ()},
    ],
)
def test_what_the_episode_was_is_in(fields: Mapping[str, object]) -> None:
    assert transcript(replace(TRAJECTORY, **fields)) != transcript(TRAJECTORY)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"step_index": 1},
        {"messages": ()},
        {"response_text": "other"},
        {"reward": 2.0},
        {"reward_terms": {}},
        {"terminated": False},
        {"truncated": True},
        {"state_key": "other"},
        {"trace_key": "other"},
        {"tool_calls": (ToolCall("f", {}),)},
        {"observation_text": "other"},
        {"info": {"success": True}},
        {"prompt_ids": (1,)},
        {"response_ids": (1,)},
        {"response_logprobs": (-0.2,)},
        {"model": "other"},
        {"temperature": 1.0},
        {"finish_reason": "length"},
        {"usage": Usage(1, 1)},
    ],
)
def test_what_a_step_was_is_in(fields: Mapping[str, object]) -> None:
    step: Step = replace(STEP, **fields)  # type: ignore[arg-type]
    assert transcript(replace(TRAJECTORY, steps=(step,))) != transcript(TRAJECTORY)


def test_every_field_is_either_in_or_left_out_on_purpose() -> None:
    value = json.loads(transcript(TRAJECTORY))
    left_out = {"trajectory_id", "group_id", "run_id", "policy", "parent", "started_at", "ended_at"}
    left_out |= {"env_id", "options"}
    assert value.keys() == set(Trajectory.__slots__) - left_out
    of_step = {"policy_version_before", "policy_version_after", "timing"}
    assert value["steps"][0].keys() == set(Step.__slots__) - of_step


def test_which_call_a_message_answers_is_in() -> None:
    calls = (ToolCall("f", {}, "a"), ToolCall("f", {}, "b"))

    def asked(answered: str) -> bytes:
        messages = (Message("assistant", "", calls), Message("tool", "", tool_call_id=answered))
        return transcript(replace(TRAJECTORY, steps=(replace(STEP, messages=messages),)))

    assert asked("a") != asked("b")


def test_what_has_no_canonical_form_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'t' has no transcript"):
        transcript(replace(TRAJECTORY, steps=(replace(STEP, info={"x": float("nan")}),)))


@given(strategies.trajectories())
def test_a_transcript_is_json_in_ascii(trajectory: Trajectory) -> None:
    text = transcript(trajectory)
    assert text.isascii()
    assert json.loads(text)["task_id"] == trajectory.task_id


def test_a_digest_does_not_depend_on_the_order() -> None:
    items = [replace(TRAJECTORY, seed=seed) for seed in range(4)]
    digests = {digest_of(map(fingerprint, order)) for order in itertools.permutations(items)}
    assert len(digests) == 1


def test_a_digest_depends_on_every_transcript_and_on_their_number() -> None:
    other = replace(TRAJECTORY, seed=8)
    digests = [
        digest_of(map(fingerprint, items))
        for items in ([], [TRAJECTORY], [other], [TRAJECTORY, other], [TRAJECTORY, TRAJECTORY])
    ]
    assert len(set(digests)) == 5
