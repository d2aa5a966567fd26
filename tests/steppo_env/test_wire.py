"""The documents of the HTTP API."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, JsonValue, ValidationError

from steppo_env import wire
from steppo_env.errors import EpisodeEnded
from steppo_env.mdp import Message, Observation, Outcome, ToolCall, ToolSpec
from steppo_env.wire import (
    MAX_BATCH,
    BatchSessions,
    BatchSteps,
    CreateGroup,
    CreateSession,
    ForkRequest,
    LeaseRequest,
    MessageModel,
    ObservationModel,
    Problem,
    Reply,
    Request,
    SessionReply,
    StepItem,
    StepReply,
    StepRequest,
    read_action,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON: st.SearchStrategy[JsonValue] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=2)
CALL = st.builds(ToolCall, TEXT, OBJECT, st.none() | st.text("abc_1", min_size=1))
MESSAGE = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    TEXT,
    st.lists(CALL, max_size=2).map(tuple),
    st.none() | TEXT,
)
OBSERVATION = st.builds(
    Observation,
    messages=st.lists(MESSAGE, max_size=3).map(tuple),
    text=TEXT,
    state_key=st.text("0123456789abcdef", min_size=32, max_size=32),
    tools=st.lists(st.builds(ToolSpec, TEXT, TEXT, OBJECT), max_size=2).map(tuple),
    admissible_actions=st.none() | st.lists(TEXT, max_size=3).map(tuple),
)
CREATE: dict[str, JsonValue] = {"env_id": "steppo/KeyDoor-v0", "task_id": "dev/0"}
REQUESTS: dict[type[Request], dict[str, Any]] = {
    CreateSession: CREATE,
    StepRequest: {"step_index": 0, "action": "go"},
    StepItem: {"step_index": 0, "action": "go", "session_id": "s1"},
    BatchSessions: {"sessions": [CREATE]},
    BatchSteps: {"steps": [{"step_index": 0, "action": "go", "session_id": "s1"}]},
    CreateGroup: {**CREATE, "size": 2},
    ForkRequest: {"count": 2, "at_step": 0},
    LeaseRequest: {"session_ids": ["s1"], "revive": True},
}


@given(OBSERVATION)
@example(Observation((Message("user", "\x00 é \u2028 😀 \u202e"),), "\ufeff", "0" * 32, (), ()))
def test_an_observation_crosses_the_wire_unchanged(observation: Observation) -> None:
    sent = ObservationModel.of(observation).model_dump_json()
    received = ObservationModel.model_validate_json(sent)
    assert received.to_observation(observation.state_key) == observation


@given(MESSAGE)
def test_a_message_crosses_the_wire_in_the_form_of_openai(message: Message) -> None:
    sent = json.loads(MessageModel.of(message).model_dump_json())
    assert set(sent) >= {"role", "content"}
    assert None not in sent.values()  # endpoints refuse a null tool_calls or tool_call_id
    assert sent.get("tool_calls") != []
    for call, document in zip(message.tool_calls, sent.get("tool_calls", []), strict=True):
        assert document["type"] == "function"
        assert document["function"]["name"] == call.name
        assert json.loads(document["function"]["arguments"]) == call.arguments
    assert MessageModel.model_validate(sent).to_message() == message


@given(
    OBSERVATION,
    st.dictionaries(TEXT, st.floats(-1e9, 1e9), max_size=3),
    st.lists(TEXT, max_size=2),
    st.sampled_from([(False, False), (True, False), (False, True)]),
)
def test_an_outcome_crosses_the_wire_unchanged(
    observation: Observation,
    terms: dict[str, float],
    rejected: list[str],
    ended: tuple[bool, bool],
) -> None:
    info: dict[str, JsonValue] = {"rejected": [*rejected], "success": False}
    outcome = Outcome(observation, terms, *ended, tuple(rejected), info)
    reply = StepReply(
        session_id="s",
        env_id="e",
        task_id="t",
        seed=2**63 - 1,
        step_index=0,
        observation=ObservationModel.of(observation),
        state_key=observation.state_key,
        trace_key="1" * 32,
        reward=outcome.reward,
        reward_terms=terms,
        terminated=outcome.terminated,
        truncated=outcome.truncated,
        trainable=True,
        info=info,
        lease_expires_at=0.5,
    )
    received = StepReply.model_validate_json(reply.model_dump_json())
    assert received == reply
    assert received.to_outcome() == outcome
    assert received.to_outcome().reward == received.reward


def test_every_request_is_tested_here() -> None:
    defined = {
        value
        for value in vars(wire).values()
        if isinstance(value, type) and issubclass(value, Request) and value is not Request
    }
    assert defined == set(REQUESTS)


@pytest.mark.parametrize("model", REQUESTS, ids=lambda model: str(model.__name__))
def test_an_unknown_field_of_a_request_is_refused(model: type[BaseModel]) -> None:
    body = REQUESTS[model]  # type: ignore[index]
    model.model_validate_json(json.dumps(body))
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        model.model_validate_json(json.dumps({**body, "step_limt": 3}))


def test_an_unknown_field_of_a_reply_is_ignored() -> None:
    assert issubclass(SessionReply, Reply)
    assert MessageModel.model_validate({"role": "user", "content": "x", "from": "v1.9"})


@pytest.mark.parametrize(
    "task",
    [
        {},
        {"split": "dev"},
        {"index": 0},
        {"task_id": "dev/0", "split": "dev", "index": 0},
        {"task_id": "dev/0", "split": "dev"},
        {"task_id": "dev/0", "index": 0},
        {"task_id": None, "split": "dev", "index": None},
    ],
)
def test_a_task_named_twice_or_not_at_all_is_refused(task: dict[str, JsonValue]) -> None:
    with pytest.raises(ValidationError, match="by task_id, or by split and index, not both"):
        CreateSession.model_validate({"env_id": "e", **task})


def test_a_task_is_named_by_id_or_by_place() -> None:
    assert CreateSession.model_validate({"env_id": "e", "task_id": "x"}).task_id == "x"
    placed = CreateSession.model_validate({"env_id": "e", "split": "dev", "index": 0})
    assert (placed.split, placed.index, placed.seed, placed.options) == ("dev", 0, 0, {})


@pytest.mark.parametrize(
    "field",
    [
        *({"seed": -1}, {"seed": 2**63}, {"seed": 0.5}, {"lease_s": 0}, {"lease_s": 86_401}),
        *({"lease_s": "nan"}, {"env_id": ""}, {"env_id": "x" * 513}, {"task_id": ""}),
        *({"session_id": name} for name in ("", "a b", "a/b", "é", "x" * 129, "a\n")),
        *({"options": []}, {"options": None}),
    ],
)
def test_a_session_out_of_bounds_is_refused(field: dict[str, JsonValue]) -> None:
    with pytest.raises(ValidationError):
        CreateSession.model_validate({**CREATE, **field})


@pytest.mark.parametrize(
    "field", [{"step_index": -1}, {"step_index": 2**31}, {"action": None}, {"action": ["go"]}]
)
def test_a_step_out_of_bounds_is_refused(field: dict[str, JsonValue]) -> None:
    with pytest.raises(ValidationError):
        StepRequest.model_validate({"step_index": 0, "action": "go", **field})


@pytest.mark.parametrize(("model", "field"), [(BatchSessions, "sessions"), (BatchSteps, "steps")])
def test_a_batch_has_at_least_one_item_and_a_limit(model: type[BaseModel], field: str) -> None:
    item = REQUESTS[model][field][0]  # type: ignore[index]
    model.model_validate({field: [item] * MAX_BATCH})
    for count in (0, MAX_BATCH + 1):
        with pytest.raises(ValidationError):
            model.model_validate({field: [item] * count})


def test_an_action_is_text_or_a_message() -> None:
    assert read_action("<act>go</act>").commands == ("go",)
    function: dict[str, JsonValue] = {"name": "look", "arguments": '{"at": "key"}'}
    calls: list[JsonValue] = [{"id": "c1", "type": "function", "function": function}]
    message = StepRequest.model_validate(
        {"step_index": 0, "action": {"role": "assistant", "tool_calls": calls}}
    )
    assert read_action(message.action).tool_calls == (ToolCall("look", {"at": "key"}, "c1"),)


def test_a_problem_keeps_the_facts_of_an_error() -> None:
    problem = EpisodeEnded("it is over", num_steps=4).to_problem("/v1/x")
    assert json.loads(Problem.model_validate(problem).model_dump_json()) == problem


def test_objects_of_free_form_are_at_most_sixty_levels_deep() -> None:
    def nested(num_levels: int) -> bytes:
        return b'{"a":' * (num_levels - 1) + b"[]" + b"}" * (num_levels - 1)

    bodies: dict[type[BaseModel], bytes] = {
        CreateSession: b'{"env_id":"e","task_id":"t","options":%b}',
        StepRequest: b'{"step_index":0,"action":%b}',
    }
    for model, body in bodies.items():
        assert model.model_validate_json(body % nested(60))
        for num_levels in (61, 150, 100_000):
            with pytest.raises(ValidationError):
                model.model_validate_json(body % nested(num_levels))
