"""Session and step replies as JSON bytes: what `wire.SessionReply` and `wire.StepReply` would dump.

Written piece by piece, because validating and dumping the models costs as much as a cheap environment's
whole step. The models stay the schema; a test holds these bytes against theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from pydantic import JsonValue, TypeAdapter
from pydantic_core import to_json

from steppo_env.mdp import Message, Observation, Outcome, Role, Task, ToolSpec
from steppo_env.wire import MessageModel, ToolModel

__all__ = ["ReplyWriter", "with_lease"]


@dataclass(slots=True)
class _StateTail:
    """The members of a SessionReply after its observation, but for the lease."""

    state_key: str
    trace_key: str
    terminated: bool
    truncated: bool
    trainable: bool


@dataclass(slots=True)
class _StepTail:
    """The members of a StepReply after its observation, but for the lease."""

    state_key: str
    trace_key: str
    reward: float
    reward_terms: dict[str, float]
    terminated: bool
    truncated: bool
    trainable: bool
    info: dict[str, JsonValue]


@dataclass(slots=True)
class _Shown:
    """The members of an observation after its tools."""

    text: str
    admissible_actions: tuple[str, ...] | None


_ROLES = frozenset(get_args(Role))

# The serializers themselves: a TypeAdapter's own method costs as much as what it does here.
_MESSAGES = TypeAdapter(tuple[Message, ...]).serializer
_SHOWN = TypeAdapter(_Shown).serializer
_STATE_TAIL = TypeAdapter(_StateTail).serializer
_STEP_TAIL = TypeAdapter(_StepTail).serializer


class ReplyWriter:
    """Writes the replies of one episode, each without `lease_expires_at`.

    A reply is an object that is still open: `with_lease` completes it.
    """

    def __init__(self, session_id: str, env_name: str, task: Task, seed: int) -> None:
        begun = {"session_id": session_id, "env_id": env_name, "task_id": task.task_id}
        placed = {**begun, "split": task.split, "labels": dict(task.labels)}
        self._step_head = _open({**begun, "seed": seed})
        self._state_head = _open({**placed, "seed": seed})
        self._tools: tuple[ToolSpec, ...] = ()
        self._tools_json = b"[]"

    def session(
        self,
        num_steps: int,
        observation: Observation,
        trace_key: str,
        *,
        terminated: bool,
        truncated: bool,
        trainable: bool,
    ) -> bytes:
        """Return the SessionReply of the current state.

        Raises:
            ValueError: The observation is not what the contract says, or is no UTF-8.
        """
        tail = _StateTail(
            state_key=observation.state_key,
            trace_key=trace_key,
            terminated=terminated,
            truncated=truncated,
            trainable=trainable,
        )
        return b'%b,"step_index":%d,"observation":%b,%b' % (
            self._state_head,
            num_steps,
            self._observation(observation),
            _STATE_TAIL.to_json(tail, warnings="error")[1:-1],
        )

    def step(self, step_index: int, outcome: Outcome, trace_key: str) -> bytes:
        """Return the StepReply of a step that was taken.

        Raises:
            ValueError: The outcome is not what the contract says, or is no UTF-8.
        """
        observation = outcome.observation
        tail = _StepTail(
            state_key=observation.state_key,
            trace_key=trace_key,
            reward=outcome.reward,
            reward_terms=dict(outcome.reward_terms),
            terminated=outcome.terminated,
            truncated=outcome.truncated,
            trainable=True,
            info=dict(outcome.info),
        )
        return b'%b,"step_index":%d,"observation":%b,%b' % (
            self._step_head,
            step_index,
            self._observation(observation),
            _STEP_TAIL.to_json(tail, warnings="error")[1:-1],
        )

    def _observation(self, observation: Observation) -> bytes:
        _check(observation)
        shown = _Shown(observation.text, observation.admissible_actions)
        return b'{"messages":%b,"tools":%b,%b}' % (
            _messages_json(observation.messages),
            self._tools_as_json(observation.tools),
            _SHOWN.to_json(shown, warnings="error")[1:-1],
        )

    def _tools_as_json(self, tools: tuple[ToolSpec, ...]) -> bytes:
        # Most environments give the very same tuple in every state.
        if tools is not self._tools:
            self._tools_json = _tools_json(tools)
            self._tools = tools
        return self._tools_json


def with_lease(reply: bytes, lease_expires_at: float) -> bytes:
    """Complete a reply with when the session's lease runs out (Unix time, seconds).

    >>> with_lease(b'{"session_id":"s"', 2.5)
    b'{"session_id":"s","lease_expires_at":2.5}'
    """
    return b'%b,"lease_expires_at":%b}' % (reply, to_json(lease_expires_at))


def _check(observation: Observation) -> None:
    """Refuse what the serializers let pass although the models do not: a null, a role nobody knows."""
    texts = (observation.text, observation.state_key, *(observation.admissible_actions or ()))
    if None in texts:
        raise ValueError(
            "an observation's text, state_key and admissible_actions are texts, not null"
        )
    for message in observation.messages:
        if message.role not in _ROLES or message.content is None:
            raise ValueError(
                f"a message has a role of {', '.join(sorted(_ROLES))} and a text, not "
                f"{message.role!r} and {type(message.content).__name__}"
            )


def _open(members: dict[str, object]) -> bytes:
    return to_json(members)[:-1]


def _tools_json(tools: Sequence[ToolSpec]) -> bytes:
    return b"[%b]" % b",".join(ToolModel.of(tool).model_dump_json().encode() for tool in tools)


def _messages_json(messages: tuple[Message, ...]) -> bytes:
    if any(message.tool_calls for message in messages):
        models = [MessageModel.of(message).model_dump_json().encode() for message in messages]
        return b"[%b]" % b",".join(models)
    # Without calls a message has the form of the wire; what is absent is left out.
    return _MESSAGES.to_json(messages, exclude_defaults=True, warnings="error")
