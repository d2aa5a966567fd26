"""Trajectories to rows and back, exactly.

A row is a plain dict of column values. Token ids become little-endian int32 and log-probabilities
little-endian float32 bytes; a log-probability is therefore rounded to float32, the precision in
which engines send it. Structures become JSON text that keeps the order of keys, because the order
of a tool's parameters is part of what a chat template renders. In a floating-point column -0.0 is
kept as 0.0.
"""

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from sqlalchemy import RowMapping

from steppo_env.errors import StoreError
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
from steppo_env.store.json_text import dump_json, load_json
from steppo_env.store.validation import check_text, check_trajectory

__all__ = [
    "Row",
    "decode_trajectory",
    "encode_trajectory",
]

_IDS, _LOGPROBS = np.dtype("<i4"), np.dtype("<f4")

Cell = str | int | float | bytes | None
Row = dict[str, Cell]
"""Column values by column name."""


def encode_trajectory(trajectory: Trajectory) -> tuple[Row, list[Row]]:
    """Return the row of a trajectory, and one per step, without their sequence number.

    Raises:
        InvalidInput: The trajectory contradicts itself or holds something that cannot be kept.
    """
    check_text(trajectory.trajectory_id, "a trajectory_id")
    check_trajectory(trajectory)
    name = f"trajectory {trajectory.trajectory_id!r}"
    parent, final = trajectory.parent, trajectory.final_messages
    row: Row = {
        "trajectory_id": trajectory.trajectory_id,
        "group_id": trajectory.group_id,
        "env_id": trajectory.env_id,
        "task_id": trajectory.task_id,
        "split": trajectory.split,
        "seed": trajectory.seed,
        "policy": trajectory.policy,
        "run_id": trajectory.run_id,
        "stop_reason": trajectory.stop_reason.value,
        "success": trajectory.success,
        "error": trajectory.error,
        "labels": dump_json(trajectory.labels, f"{name}: labels"),
        "options": dump_json(trajectory.options, f"{name}: options"),
        "tools": dump_json([_tool(tool) for tool in trajectory.tools], f"{name}: tools"),
        "final_messages": None if final is None else _messages(final, f"{name}: final_messages"),
        "final_prompt_ids": _ids(trajectory.final_prompt_ids),
        "parent_trajectory_id": None if parent is None else parent.trajectory_id,
        "parent_step_index": None if parent is None else parent.step_index,
        "started_at": _real(trajectory.started_at),
        "ended_at": _real(trajectory.ended_at),
        "trainable": trajectory.trainable,
        "num_steps": len(trajectory.steps),
        "return_": _real(trajectory.return_),
    }
    _check_row(row, name)
    return row, [_encode_step(step, f"{name}, step {step.step_index}") for step in trajectory.steps]


def _encode_step(step: Step, where: str) -> Row:
    terms = {term: float(value) for term, value in step.reward_terms.items()}
    usage = step.usage
    row: Row = {
        "step_index": step.step_index,
        "messages": _messages(step.messages, f"{where}: messages"),
        "response_text": step.response_text,
        "reward": _real(step.reward),
        "reward_terms": dump_json(terms, f"{where}: reward_terms"),
        "terminated": step.terminated,
        "truncated": step.truncated,
        "state_key": step.state_key,
        "trace_key": step.trace_key,
        "tool_calls": dump_json([_call(call) for call in step.tool_calls], f"{where}: tool_calls"),
        "observation_text": step.observation_text,
        "info": dump_json(step.info, f"{where}: info"),
        "prompt_ids": _ids(step.prompt_ids),
        "response_ids": _ids(step.response_ids),
        "response_logprobs": _logprobs(step.response_logprobs),
        "policy_version_before": step.policy_version_before,
        "policy_version_after": step.policy_version_after,
        "model": step.model,
        "temperature": None if step.temperature is None else _real(step.temperature),
        "finish_reason": step.finish_reason,
        "prompt_tokens": None if usage is None else usage.prompt_tokens,
        "completion_tokens": None if usage is None else usage.completion_tokens,
        "queue_s": _real(step.timing.queue_s),
        "generate_s": _real(step.timing.generate_s),
        "environment_s": _real(step.timing.environment_s),
    }
    _check_row(row, where)
    return row


def decode_trajectory(row: RowMapping, step_rows: Iterable[RowMapping]) -> Trajectory:
    """Return the trajectory of a row and of its steps' rows, in their order.

    Raises:
        StoreError: The rows are not what this software writes: the file was damaged or edited.
    """
    try:
        return _decode_trajectory(row, step_rows)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise StoreError(
            f"the stored record of trajectory {row['trajectory_id']!r} cannot be read "
            f"({type(error).__name__}: {error}); restore the store from a backup"
        ) from None


def _decode_trajectory(row: RowMapping, step_rows: Iterable[RowMapping]) -> Trajectory:
    final, parent_id = row["final_messages"], row["parent_trajectory_id"]
    trajectory = Trajectory(
        trajectory_id=row["trajectory_id"],
        group_id=row["group_id"],
        env_id=row["env_id"],
        task_id=row["task_id"],
        split=row["split"],
        seed=row["seed"],
        policy=row["policy"],
        steps=tuple(_decode_step(step) for step in step_rows),
        stop_reason=StopReason(row["stop_reason"]),
        run_id=row["run_id"],
        success=row["success"],
        error=row["error"],
        labels=load_json(row["labels"]),
        options=load_json(row["options"]),
        tools=tuple(ToolSpec(**tool) for tool in load_json(row["tools"])),
        final_messages=None if final is None else _decode_messages(final),
        final_prompt_ids=_decode_ids(row["final_prompt_ids"]),
        parent=None if parent_id is None else ParentStep(parent_id, row["parent_step_index"]),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )
    if len(trajectory.steps) != row["num_steps"]:
        raise ValueError(f"{row['num_steps']} steps were written, {len(trajectory.steps)} are left")
    return trajectory


def _decode_step(row: RowMapping) -> Step:
    logprobs, prompt_tokens = row["response_logprobs"], row["prompt_tokens"]
    return Step(
        step_index=row["step_index"],
        messages=_decode_messages(row["messages"]),
        response_text=row["response_text"],
        reward=row["reward"],
        reward_terms=load_json(row["reward_terms"]),
        terminated=row["terminated"],
        truncated=row["truncated"],
        state_key=row["state_key"],
        trace_key=row["trace_key"],
        tool_calls=tuple(ToolCall(**call) for call in load_json(row["tool_calls"])),
        observation_text=row["observation_text"],
        info=load_json(row["info"]),
        prompt_ids=_decode_ids(row["prompt_ids"]),
        response_ids=_decode_ids(row["response_ids"]),
        response_logprobs=None if logprobs is None else _decode_array(logprobs, _LOGPROBS),
        policy_version_before=row["policy_version_before"],
        policy_version_after=row["policy_version_after"],
        model=row["model"],
        temperature=row["temperature"],
        finish_reason=row["finish_reason"],
        usage=None if prompt_tokens is None else Usage(prompt_tokens, row["completion_tokens"]),
        timing=Timing(row["queue_s"], row["generate_s"], row["environment_s"]),
    )


def _messages(messages: tuple[Message, ...], where: str) -> str:
    return dump_json([_message(message) for message in messages], where)


def _message(message: Message) -> dict[str, object]:
    value: dict[str, object] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        value["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        value["tool_call_id"] = message.tool_call_id
    return value


def _decode_messages(text: str) -> tuple[Message, ...]:
    return tuple(
        Message(
            cast(Role, value["role"]),
            value["content"],
            tuple(ToolCall(**call) for call in value.get("tool_calls", ())),
            value.get("tool_call_id"),
        )
        for value in load_json(text)
    )


def _call(call: ToolCall) -> dict[str, object]:
    return {"name": call.name, "arguments": call.arguments, "call_id": call.call_id}


def _tool(tool: ToolSpec) -> dict[str, object]:
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }


def _real(value: float) -> float:
    # SQLite keeps a whole number in a REAL column as an integer, which has no -0.
    return float(value) + 0.0


def _ids(ids: tuple[int, ...] | None) -> bytes | None:
    return None if ids is None else np.asarray(ids, dtype=_IDS).tobytes()


def _logprobs(logprobs: tuple[float, ...] | None) -> bytes | None:
    return None if logprobs is None else np.asarray(logprobs, dtype=_LOGPROBS).tobytes()


def _decode_ids(data: bytes | None) -> tuple[int, ...] | None:
    return None if data is None else _decode_array(data, _IDS)


def _decode_array(data: bytes, kind: "np.dtype[Any]") -> tuple[Any, ...]:
    return tuple(np.frombuffer(data, dtype=kind).tolist())


def _check_row(row: Row, where: str) -> None:
    for column, value in row.items():
        if isinstance(value, str):
            check_text(value, f"{where}: {column}")
