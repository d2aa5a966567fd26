"""Keys are equal exactly when what they stand for is."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from steppo_env.keys import (
    canonical_json,
    digest,
    first_trace_key,
    next_trace_key,
    seed_words,
    state_key,
)
from steppo_env.mdp import (
    Action,
    IssueKind,
    Message,
    Observation,
    Outcome,
    ParseIssue,
    ToolCall,
    ToolSpec,
)

JSON: st.SearchStrategy[JsonValue] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),  # with surrogates
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
SCHEMA: dict[str, JsonValue] = {"type": "object", "properties": {"q": {"type": "string"}}}
CALL = ToolCall("look", {"at": "key"}, "c1")
STATE = Observation(
    messages=(Message("user", "look"), Message("assistant", "", (CALL,)), Message("tool", "a key")),
    text="a key",
    state_key="0" * 32,
    tools=(ToolSpec("look", "Look at something.", SCHEMA),),
    admissible_actions=("look", "go"),
)
ACTION = Action("<act>go</act>", (CALL,), "yes", ("go",), "think", ())
OUTCOME = Outcome(STATE, {"goal": 1.0, "cost": -0.5}, False, False)
OTHER_STATES = {
    "state_key": replace(STATE, state_key="1" * 32),
    "text": replace(STATE, text="a door"),
    "no admissible actions": replace(STATE, admissible_actions=()),
    "unknown admissible actions": replace(STATE, admissible_actions=None),
    "admissible actions in another order": replace(STATE, admissible_actions=("go", "look")),
    "no tools": replace(STATE, tools=()),
    "tool name": replace(STATE, tools=(replace(STATE.tools[0], name="see"),)),
    "tool description": replace(STATE, tools=(replace(STATE.tools[0], description=""),)),
    "tool parameters": replace(STATE, tools=(replace(STATE.tools[0], parameters={}),)),
    "fewer messages": replace(STATE, messages=STATE.messages[:2]),
    "message role": replace(STATE, messages=(Message("system", "look"), *STATE.messages[1:])),
    "message content": replace(STATE, messages=(Message("user", "see"), *STATE.messages[1:])),
    "call in a message": replace(
        STATE, messages=(STATE.messages[0], Message("assistant", ""), STATE.messages[2])
    ),
}
OTHER_ACTIONS = {
    "content": replace(ACTION, content="<act>go </act>"),
    "no calls": replace(ACTION, tool_calls=()),
    "call name": replace(ACTION, tool_calls=(replace(CALL, name="see"),)),
    "call arguments": replace(ACTION, tool_calls=(replace(CALL, arguments={"at": "door"}),)),
    "twice the call": replace(ACTION, tool_calls=(CALL, CALL)),
    "answer": replace(ACTION, answer="no"),
    "no answer": replace(ACTION, answer=None),
    "commands": replace(ACTION, commands=("go", "go")),
    "reasoning": replace(ACTION, reasoning=None),
    "rejection": replace(ACTION, issues=(ParseIssue(IssueKind.REJECTED, "bad"),)),
}
OTHER_OUTCOMES = {
    "reward": replace(OUTCOME, reward_terms={"goal": 1.0, "cost": -0.25}),
    "terms of the same reward": replace(OUTCOME, reward_terms={"goal": 0.5}),
    "name of a term": replace(OUTCOME, reward_terms={"goal": 1.0, "toll": -0.5}),
    "terminated": replace(OUTCOME, terminated=True),
    "truncated": replace(OUTCOME, truncated=True),
}


@given(JSON)
def test_canonical_json_is_ascii_and_means_the_same(value: JsonValue) -> None:
    text = canonical_json(value)
    assert text.isascii()
    assert json.loads(text) == value


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": {"y": 1, "x": 2}, "a": 0}) == b'{"a":0,"b":{"x":2,"y":1}}'
    assert canonical_json([1, 2]) != canonical_json([2, 1])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_json_has_no_key(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest([value])


@given(JSON, JSON)
def test_digests_are_32_hex_digits_and_equal_for_one_text_only(a: JsonValue, b: JsonValue) -> None:
    assert len(digest(a)) == 32
    assert int(digest(a), 16) >= 0
    assert (digest(a) == digest(b)) == (canonical_json(a) == canonical_json(b))


def test_a_state_key_is_of_environment_task_and_state() -> None:
    keys = {
        state_key("a/B-v0", "dev/1", [1, 2]),
        state_key("a/B-v1", "dev/1", [1, 2]),
        state_key("a/B-v0", "dev/2", [1, 2]),
        state_key("a/B-v0", "dev/1", [2, 1]),
        state_key("a/B-v0dev/1", "", [1, 2]),
    }
    assert len(keys) == 5
    assert state_key("a/B-v0", "dev/1", [1, 2]) in keys


def test_seed_words_tell_names_and_numbers_apart() -> None:
    drawn = [seed_words(*parts) for parts in (("a", 1), ("a", "1"), ("a1",), ("a", 2), (1, "a"))]
    assert len({tuple(words) for words in drawn}) == len(drawn)
    assert all(len(words) == 4 and all(0 <= word < 2**32 for word in words) for words in drawn)


@pytest.mark.parametrize("what", OTHER_STATES)
def test_another_observation_gives_another_trace(what: str) -> None:
    other = OTHER_STATES[what]
    assert other != STATE
    assert first_trace_key("e", "t", 0, other) != first_trace_key("e", "t", 0, STATE)
    there = next_trace_key("p", ACTION, replace(OUTCOME, observation=other))
    assert there != next_trace_key("p", ACTION, OUTCOME)


@pytest.mark.parametrize("what", OTHER_ACTIONS)
def test_another_action_gives_another_trace(what: str) -> None:
    other = next_trace_key("p", OTHER_ACTIONS[what], OUTCOME)
    assert other != next_trace_key("p", ACTION, OUTCOME)


@pytest.mark.parametrize("what", OTHER_OUTCOMES)
def test_another_reward_or_end_gives_another_trace(what: str) -> None:
    other = next_trace_key("p", ACTION, OTHER_OUTCOMES[what])
    assert other != next_trace_key("p", ACTION, OUTCOME)


def test_another_past_gives_another_trace() -> None:
    first = first_trace_key("e", "t", 0, STATE)
    others = [
        first_trace_key("f", "t", 0, STATE),
        first_trace_key("e", "u", 0, STATE),
        first_trace_key("e", "t", 1, STATE),
    ]
    nexts = [next_trace_key(key, ACTION, OUTCOME) for key in (first, *others)]
    assert len({first, *others, *nexts}) == 8
    # Two steps are not one: the chain does not forget how long it is.
    assert next_trace_key(nexts[0], ACTION, OUTCOME) != nexts[0]


def test_equal_episodes_have_equal_traces() -> None:
    renamed = replace(CALL, call_id="c2")
    messages = (
        STATE.messages[0],
        replace(STATE.messages[1], tool_calls=(renamed,)),
        replace(STATE.messages[2], tool_call_id="c2"),
    )
    tool = replace(STATE.tools[0], parameters=dict(reversed(SCHEMA.items())))
    state = replace(STATE, messages=messages, tools=(tool,))
    action = replace(
        ACTION, tool_calls=(renamed,), issues=(ParseIssue(IssueKind.RECOVERED, "wording"),)
    )
    outcome = Outcome(state, {"cost": -0.5, "goal": 1.0}, info={"seconds": 3}, rejected=("x",))
    assert first_trace_key("e", "t", 0, state) == first_trace_key("e", "t", 0, STATE)
    assert next_trace_key("p", action, outcome) == next_trace_key("p", ACTION, OUTCOME)


def test_keys_are_the_same_in_other_processes_and_under_other_hash_seeds() -> None:
    script = (
        "from steppo_env.keys import *\n"
        "print(state_key('a/B-v0', 'dev/1', {'ü': [1, 2.5], 'a': None}), seed_words('a', 7))"
    )
    here = f"{state_key('a/B-v0', 'dev/1', {'a': None, 'ü': [1, 2.5]})} {seed_words('a', 7)}"
    for hash_seed in ("0", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=50,
            check=True,
        )
        assert done.stdout.strip() == here
    # Written down, so that a change of the scheme is a decision: stored keys would go stale.
    assert state_key("a/B-v0", "dev/1", [1, 2]) == "02d0f78de06713f4a7f2935d40e65a0a"
