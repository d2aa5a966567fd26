"""What a trajectory must satisfy before it is stored.

What a type checker proves is not checked again; these are the claims that types cannot make, and
that a learner relies on without looking.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np
from pydantic import JsonValue

from steppo_env.errors import InvalidInput
from steppo_env.mdp import Step, StopReason, Trajectory

__all__ = [
    "LOGPROB_ROUNDING",
    "MAX_TOKEN_ID",
    "MISSING_LOGPROB",
    "check_integer",
    "check_number",
    "check_text",
    "check_trajectory",
    "is_text",
]

MAX_INTEGER = 2**63 - 1
"""Databases hold signed 64-bit integers."""
MAX_TOKEN_ID = 2**31 - 1
"""Token ids are kept as int32."""
LOGPROB_ROUNDING = 1e-4
"""How far above 0 a log-probability may lie, in nats.

A sampler that computes x - logsumexp(x) in float32 misses 0 by a few units in the last place of the
logits: 6e-5 for logits near 1000. Such a value is kept as it came.
"""
MISSING_LOGPROB = -9999.0
"""What some engines send for "no log-probability"; as a number it would ruin a ratio."""
REWARD_TOLERANCE = 1e-9
"""Absolute, and relative for rewards above 1."""


def is_text(value: str) -> bool:
    """Return whether text has a UTF-8 form: nothing else can be stored or looked up."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_text(value: str, where: str) -> None:
    """Refuse text that has no UTF-8 form.

    Raises:
        InvalidInput: It holds a lone surrogate.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{where} must be Unicode text; character {error.start} is a lone surrogate "
            f"(U+{ord(value[error.start]):04X}), which has no UTF-8 form. Replace it first"
        ) from None


def check_number(value: float, where: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        InvalidInput: It is not finite.
    """
    if not math.isfinite(value):
        raise InvalidInput(f"{where} must be a finite number; got {value}")


def check_integer(value: int, where: str, least: int = -MAX_INTEGER - 1) -> None:
    """Refuse an integer that the database cannot hold.

    Raises:
        InvalidInput: It is below `least`, or does not fit in 64 bits.
    """
    if not least <= value <= MAX_INTEGER:
        # Not all of it: an integer beyond 4300 digits cannot even be printed.
        shown = value if abs(value) < 2**128 else f"one of {value.bit_length()} bits"
        raise InvalidInput(f"{where} must be an integer from {least} to {MAX_INTEGER}; got {shown}")


def check_trajectory(trajectory: Trajectory) -> None:
    """Refuse a trajectory that contradicts itself.

    Raises:
        InvalidInput: Names the trajectory, the step and the field.
    """
    name = f"trajectory {trajectory.trajectory_id!r}"
    if not trajectory.trajectory_id:
        raise InvalidInput("a trajectory needs a trajectory_id; got an empty one")
    check_integer(trajectory.seed, f"{name}: seed")
    check_number(trajectory.started_at, f"{name}: started_at")
    check_number(trajectory.ended_at, f"{name}: ended_at")
    if trajectory.final_prompt_ids is not None:
        _check_token_ids(trajectory.final_prompt_ids, f"{name}: final_prompt_ids")
    if trajectory.parent is not None:
        check_integer(trajectory.parent.step_index, f"{name}: parent.step_index", least=0)
    for index, step in enumerate(trajectory.steps):
        where = f"{name}, step {index}"
        if step.step_index != index:
            raise InvalidInput(
                f"{where}: step_index must count from 0 without gaps; expected {index}, "
                f"got {step.step_index}",
                trajectory_id=trajectory.trajectory_id,
                step_index=index,
            )
        _check_reward(step, where)
        _check_tokens(step, where)
        _check_measurements(step, where)
    _check_end(trajectory, name)
    _check_return(trajectory, name)


def _check_reward(step: Step, where: str) -> None:
    check_number(step.reward, f"{where}: reward")
    for term, value in step.reward_terms.items():
        check_number(value, f"{where}: reward term {term!r}")
    total = _sum(step.reward_terms.values(), f"{where}: reward_terms")
    tolerance = REWARD_TOLERANCE * max(1.0, abs(total))
    if abs(step.reward - total) > tolerance:
        raise InvalidInput(
            f"{where}: reward must be the sum of its terms, {total}; got {step.reward}"
        )


def _check_return(trajectory: Trajectory, name: str) -> None:
    _sum((step.reward for step in trajectory.steps), f"{name}: rewards")


def _sum(values: Iterable[float], where: str) -> float:
    try:
        total = math.fsum(values)
    except OverflowError:
        total = math.inf
    check_number(total, f"{where}: their sum")
    return total


def _check_tokens(step: Step, where: str) -> None:
    parts: Mapping[str, object] = {
        "prompt_ids": step.prompt_ids,
        "response_ids": step.response_ids,
        "response_logprobs": step.response_logprobs,
    }
    missing = [name for name, value in parts.items() if value is None]
    if missing and len(missing) < len(parts):
        raise InvalidInput(
            f"{where}: prompt_ids, response_ids and response_logprobs come together or not at "
            f"all; missing: {', '.join(missing)}"
        )
    if step.prompt_ids is None or step.response_ids is None or step.response_logprobs is None:
        return
    _check_token_ids(step.prompt_ids, f"{where}: prompt_ids")
    _check_token_ids(step.response_ids, f"{where}: response_ids")
    num_ids, num_logprobs = len(step.response_ids), len(step.response_logprobs)
    if num_ids != num_logprobs:
        raise InvalidInput(
            f"{where}: each response token needs one log-probability; got {num_ids} ids and "
            f"{num_logprobs} log-probabilities"
        )
    _check_logprobs(step.response_logprobs, f"{where}: response_logprobs")


def _check_token_ids(ids: tuple[int, ...], where: str) -> None:
    # Compared in Python: numpy would wrap or round what does not fit before it could be seen.
    if ids and (min(ids) < 0 or max(ids) > MAX_TOKEN_ID):
        position = next(at for at, token in enumerate(ids) if not 0 <= token <= MAX_TOKEN_ID)
        raise InvalidInput(
            f"{where}: token ids are integers from 0 to {MAX_TOKEN_ID}; got {ids[position]} at "
            f"position {position}"
        )


def _check_logprobs(logprobs: tuple[float, ...], where: str) -> None:
    with np.errstate(over="ignore"):  # what overflows float32 is refused below
        values = np.asarray(logprobs, dtype=np.float64).astype(np.float32)
    bad = ~np.isfinite(values) | (values > LOGPROB_ROUNDING) | (values == MISSING_LOGPROB)
    if bad.any():
        position = int(bad.argmax())
        raise InvalidInput(
            f"{where}: a log-probability is finite, at most 0 (up to rounding) and never the "
            f"placeholder {MISSING_LOGPROB:g}; got {logprobs[position]} at position {position}. "
            "Store the step without token ids when its sampler gives none"
        )


def _check_measurements(step: Step, where: str) -> None:
    if step.temperature is not None:
        check_number(step.temperature, f"{where}: temperature")
    if step.usage is not None:
        check_integer(step.usage.prompt_tokens, f"{where}: usage.prompt_tokens", least=0)
        check_integer(step.usage.completion_tokens, f"{where}: usage.completion_tokens", least=0)
    check_number(step.timing.queue_s, f"{where}: timing.queue_s")
    check_number(step.timing.generate_s, f"{where}: timing.generate_s")
    check_number(step.timing.environment_s, f"{where}: timing.environment_s")


def _check_end(trajectory: Trajectory, name: str) -> None:
    """Check that the flags of the steps say what the stop reason says.

    A last step may be both terminated and truncated; it then stopped because it terminated.
    """
    facts: dict[str, JsonValue] = {"trajectory_id": trajectory.trajectory_id}
    for step in trajectory.steps[:-1]:
        if step.terminated or step.truncated:
            raise InvalidInput(
                f"{name}, step {step.step_index}: only the last step may be terminated or "
                f"truncated; {len(trajectory.steps) - 1 - step.step_index} more steps follow",
                **facts,
                step_index=step.step_index,
            )
    flags = (trajectory.terminated, trajectory.truncated)
    match trajectory.stop_reason:
        case StopReason.TERMINATED:
            agrees, expected = trajectory.terminated, "a last step that is terminated"
        case StopReason.STEP_LIMIT | StopReason.TRUNCATED:
            agrees, expected = flags == (False, True), "a last step that is truncated only"
        case _:
            agrees = flags == (False, False)
            expected = "a last step that is neither terminated nor truncated"
    if not agrees:
        got = (
            f"terminated={flags[0]}, truncated={flags[1]} at step {len(trajectory.steps) - 1}"
            if trajectory.steps
            else "no steps"
        )
        raise InvalidInput(
            f"{name}: stop_reason {trajectory.stop_reason.value!r} needs {expected}; got {got}",
            **facts,
        )
