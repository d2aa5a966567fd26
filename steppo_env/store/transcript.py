"""What an episode was, in one canonical text, to compare runs byte for byte.

A transcript holds what the environment and the policy determined. It leaves out what differs
between two runs of the same thing: ids of trajectories, groups, runs and forks, the policy's name
and versions, clocks and timings. Ids of tool calls, which endpoints draw at random, are numbered by
first appearance, so which call a message answers is kept. The environment's name and options are
left out too: a named variant plays as the environment behind it, and what options change shows in
the observations and their keys. Log-probabilities are rounded to float32,
as the store keeps them: a trajectory has one transcript before and after it is stored.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b

import numpy as np
from pydantic import JsonValue

from steppo_env.errors import InvalidInput
from steppo_env.keys import canonical_json
from steppo_env.mdp import Message, Step, ToolCall, ToolSpec, Trajectory

__all__ = ["digest_of", "fingerprint", "transcript"]

DIGEST_BYTES = 16


def transcript(trajectory: Trajectory) -> bytes:
    """Return everything that environment and policy determined, as canonical JSON.

    Raises:
        InvalidInput: It holds a NaN, an infinity or something that JSON has no form for.
    """
    call_numbers: dict[str, int] = {}
    final = trajectory.final_messages
    value: dict[str, JsonValue] = {
        "task_id": trajectory.task_id,
        "split": trajectory.split,
        "seed": trajectory.seed,
        "labels": dict(trajectory.labels),
        "tools": [_tool(tool) for tool in trajectory.tools],
        "steps": [_step(step, call_numbers) for step in trajectory.steps],
        "stop_reason": trajectory.stop_reason.value,
        "success": trajectory.success,
        "error": trajectory.error,
        "final_messages": None if final is None else _messages(final, call_numbers),
        "final_prompt_ids": _list(trajectory.final_prompt_ids),
    }
    try:
        return canonical_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"trajectory {trajectory.trajectory_id!r} has no transcript: {error}"
        ) from None


def fingerprint(trajectory: Trajectory) -> bytes:
    """Return the hash of a transcript, 64 bytes: what to keep of one that need not stay in memory."""
    return blake2b(transcript(trajectory)).digest()


def digest_of(fingerprints: Iterable[bytes]) -> str:
    """Return one hash of many fingerprints, 32 hex digits; their order is free, their number counts.

    >>> digest_of([])
    'cae66941d9efbd404e4d88758ea67670'
    """
    return blake2b(b"".join(sorted(fingerprints)), digest_size=DIGEST_BYTES).hexdigest()


def _step(step: Step, call_numbers: dict[str, int]) -> JsonValue:
    usage = step.usage
    return {
        "step_index": step.step_index,
        "messages": _messages(step.messages, call_numbers),
        "response_text": step.response_text,
        "tool_calls": [_call(call, call_numbers) for call in step.tool_calls],
        "observation_text": step.observation_text,
        "reward": _real(step.reward),
        "reward_terms": {term: _real(value) for term, value in step.reward_terms.items()},
        "terminated": step.terminated,
        "truncated": step.truncated,
        "state_key": step.state_key,
        "trace_key": step.trace_key,
        "info": dict(step.info),
        "prompt_ids": _list(step.prompt_ids),
        "response_ids": _list(step.response_ids),
        "response_logprobs": _float32(step.response_logprobs),
        "model": step.model,
        "temperature": None if step.temperature is None else _real(step.temperature),
        "finish_reason": step.finish_reason,
        "usage": None if usage is None else [usage.prompt_tokens, usage.completion_tokens],
    }


def _messages(messages: tuple[Message, ...], call_numbers: dict[str, int]) -> JsonValue:
    return [
        {
            "role": message.role,
            "content": message.content,
            "tool_calls": [_call(call, call_numbers) for call in message.tool_calls],
            "answers": _number(message.tool_call_id, call_numbers),
        }
        for message in messages
    ]


def _call(call: ToolCall, call_numbers: dict[str, int]) -> JsonValue:
    return {
        "name": call.name,
        "arguments": dict(call.arguments),
        "call": _number(call.call_id, call_numbers),
    }


def _number(call_id: str | None, call_numbers: dict[str, int]) -> int | None:
    return None if call_id is None else call_numbers.setdefault(call_id, len(call_numbers))


def _tool(tool: ToolSpec) -> JsonValue:
    parameters: Mapping[str, JsonValue] = tool.parameters
    return {"name": tool.name, "description": tool.description, "parameters": dict(parameters)}


def _real(value: float) -> float:
    # 1 and 1.0, and 0.0 and -0.0, are the same reward but not the same JSON.
    return float(value) + 0.0


def _list(ids: tuple[int, ...] | None) -> JsonValue:
    return None if ids is None else list(ids)


def _float32(logprobs: tuple[float, ...] | None) -> JsonValue:
    if logprobs is None:
        return None
    return [value + 0.0 for value in np.asarray(logprobs, dtype=np.float32).tolist()]
