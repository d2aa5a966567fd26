"""Keys that are equal exactly when two states, or two whole episodes, are the same.

All keys are 128-bit BLAKE2b digests in hex over canonical JSON, so they do not depend on the
process, the hash seed or the machine.
"""

import json
from hashlib import blake2b

from pydantic import JsonValue

from steppo_env.mdp import Action, Message, Observation, Outcome, ToolCall, ToolSpec

__all__ = [
    "canonical_json",
    "digest",
    "first_trace_key",
    "next_trace_key",
    "seed_words",
    "state_key",
    "text_digest",
]

KEY_BYTES = 16

# Made once: `json.dumps` makes an encoder for each call, which costs as much as a small text.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def canonical_json(value: JsonValue) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, ASCII, no NaN.

    Raises:
        TypeError: The value is not JSON, or holds a number of a library's own type.
        ValueError: It holds a NaN or an infinity.

    >>> canonical_json({"b": 1, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    """
    return _encode(value).encode()


def digest(value: JsonValue) -> str:
    """Return the key of a JSON value: 32 hex digits."""
    return text_digest(canonical_json(value))


def text_digest(text: bytes) -> str:
    """Return the key of the value that has this canonical JSON."""
    return blake2b(text, digest_size=KEY_BYTES).hexdigest()


def state_key(env_id: str, task_id: str, state: JsonValue) -> str:
    """Return the key of a canonical state, without seed or step index (GiGPO's anchor)."""
    return digest(["state", env_id, task_id, state])


def seed_words(*parts: str | int) -> list[int]:
    """Return four 32-bit words that seed a numpy generator from names and numbers.

    >>> seed_words("steppo/KeyDoor-v0", "train/0", 7) == seed_words("steppo/KeyDoor-v0", "train/0", 7)
    True
    """
    hashed = blake2b(canonical_json(list(parts)), digest_size=16).digest()
    return [int.from_bytes(hashed[start : start + 4], "little") for start in range(0, 16, 4)]


def first_trace_key(env_id: str, task_id: str, seed: int, observation: Observation) -> str:
    """Return the trace key of an episode in which nothing has been done yet."""
    return digest(["trace", env_id, task_id, seed, _observation(observation)])


def next_trace_key(previous: str, action: Action, outcome: Outcome) -> str:
    """Chain one step onto a trace key.

    All that an environment can read of an action is in it. Tool-call ids are left out: endpoints draw
    them at random and no environment reads them.
    """
    return digest(
        [
            previous,
            action.content,
            _calls(action.tool_calls),
            action.answer,
            list(action.commands),
            action.reasoning,
            list(action.rejections),
            _observation(outcome.observation),
            outcome.reward,
            dict(outcome.reward_terms),
            outcome.terminated,
            outcome.truncated,
        ]
    )


def _calls(calls: tuple[ToolCall, ...]) -> JsonValue:
    return [[call.name, dict(call.arguments)] for call in calls]


def _message(message: Message) -> JsonValue:
    return [message.role, message.content, _calls(message.tool_calls)]


def _tool(tool: ToolSpec) -> JsonValue:
    return [tool.name, tool.description, dict(tool.parameters)]


def _observation(observation: Observation) -> JsonValue:
    admissible = observation.admissible_actions
    return [
        observation.state_key,
        observation.text,
        [_message(message) for message in observation.messages],
        [_tool(tool) for tool in observation.tools],
        None if admissible is None else list(admissible),
    ]
