"""The bytes of replies, held against the models that are their schema."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_env.mdp import Message, Observation, Outcome, Task, ToolCall, ToolSpec
from steppo_env.wire import ObservationModel, SessionReply, StepReply
from steppo_server.replies import ReplyWriter, with_lease

# A lone surrogate is no UTF-8.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
# pydantic dumps no integer beyond 64 bits in the same way everywhere; neither does JSON promise it.
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
CALLS = st.builds(
    ToolCall, TEXT, st.dictionaries(TEXT, JSON, max_size=2), st.none() | TEXT.filter(bool)
)
MESSAGES = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    TEXT,
    st.lists(CALLS, max_size=2).map(tuple),
    st.none() | TEXT,
)
TOOLS = st.builds(ToolSpec, TEXT, TEXT, st.dictionaries(TEXT, JSON, max_size=2))
OBSERVATIONS = st.builds(
    Observation,
    st.lists(MESSAGES, max_size=3).map(tuple),
    TEXT,
    TEXT,
    st.lists(TOOLS, max_size=2).map(tuple),
    st.none() | st.lists(TEXT, max_size=3).map(tuple),
)
TASKS = st.builds(Task, TEXT, TEXT, st.dictionaries(TEXT, TEXT | st.integers(0, 99), max_size=2))
TERMS = st.dictionaries(TEXT, st.floats(-1e9, 1e9), max_size=3)
OUTCOMES = st.builds(
    Outcome,
    OBSERVATIONS,
    TERMS,
    st.booleans(),
    st.booleans(),
    st.just(()),
    st.dictionaries(TEXT, JSON, max_size=3),
)
SEEDS = st.integers(0, 2**63 - 1)


@given(
    task=TASKS,
    seed=SEEDS,
    observation=OBSERVATIONS,
    trace_key=TEXT,
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    lease=st.floats(0, 1e12),
)
def test_a_session_reply_is_what_the_model_dumps(
    task: Task,
    seed: int,
    observation: Observation,
    trace_key: str,
    flags: tuple[bool, bool, bool],
    lease: float,
) -> None:
    terminated, truncated, trainable = flags
    reply = ReplyWriter("s", "e", task, seed).session(
        3,
        observation,
        trace_key,
        terminated=terminated,
        truncated=truncated,
        trainable=trainable,
    )
    model = SessionReply(
        session_id="s",
        env_id="e",
        task_id=task.task_id,
        split=task.split,
        labels=dict(task.labels),
        seed=seed,
        step_index=3,
        observation=ObservationModel.of(observation),
        state_key=observation.state_key,
        trace_key=trace_key,
        terminated=terminated,
        truncated=truncated,
        trainable=trainable,
        lease_expires_at=lease,
    )
    assert with_lease(reply, lease) == model.model_dump_json().encode()
    assert SessionReply.model_validate_json(with_lease(reply, lease)) == model


@given(task=TASKS, seed=SEEDS, outcomes=st.lists(OUTCOMES, min_size=1, max_size=3))
def test_a_step_reply_is_what_the_model_dumps_also_when_the_tools_change(
    task: Task, seed: int, outcomes: list[Outcome]
) -> None:
    writer = ReplyWriter("s", "e", task, seed)
    for index, outcome in enumerate([*outcomes, outcomes[0]]):
        model = StepReply(
            session_id="s",
            env_id="e",
            task_id=task.task_id,
            seed=seed,
            step_index=index,
            observation=ObservationModel.of(outcome.observation),
            state_key=outcome.observation.state_key,
            trace_key="key",
            reward=outcome.reward,
            reward_terms=dict(outcome.reward_terms),
            terminated=outcome.terminated,
            truncated=outcome.truncated,
            trainable=True,
            info=dict(outcome.info),
            lease_expires_at=0.5,
        )
        reply = with_lease(writer.step(index, outcome, "key"), 0.5)
        assert reply == model.model_dump_json().encode()


CARELESS: list[dict[str, Any]] = [
    {"text": None},
    {"text": "half a character: \ud800"},
    {"messages": (Message("user", 7),)},  # type: ignore[arg-type]
    {"messages": (Message("user", None),)},  # type: ignore[arg-type]
    {"messages": (Message("robot", "x"),)},  # type: ignore[arg-type]
    {"admissible_actions": (1,)},
    {"admissible_actions": ("go", None)},
    {"state_key": b"x"},
]


@pytest.mark.parametrize("mistake", CARELESS, ids=[str(number) for number in range(len(CARELESS))])
def test_what_the_models_would_refuse_is_refused(mistake: dict[str, Any]) -> None:
    given_: dict[str, Any] = {"messages": (), "text": "", "state_key": "k", **mistake}
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's own error, with a text of its own
        ReplyWriter("s", "e", Task("t", "dev"), 0).step(0, Outcome(Observation(**given_)), "k")


def test_a_reply_without_its_lease_is_open() -> None:
    reply = ReplyWriter("s", "e", Task("t", "dev"), 0).step(
        0, Outcome(Observation((), "", "k")), ""
    )
    assert "lease_expires_at" not in json.loads(reply + b"}")
