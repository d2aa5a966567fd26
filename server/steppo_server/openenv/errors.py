"""Errors as OpenEnv's socket tells them: a message and one of its codes, and beside them our problem."""

from pydantic import JsonValue, ValidationError

from steppo_env.errors import (
    CapacityExceeded,
    InvalidInput,
    MalformedRequest,
    MissingData,
    MissingDependency,
    SessionExpired,
    SteppoError,
    TooManyRequests,
    UnknownEnvironment,
    UnknownSession,
)
from steppo_env.tools import explain

__all__ = ["UnknownFrame", "error_data", "frame_error"]

# `WSErrorCode` of openenv/core/env_server/types.py; the first class that fits decides.
_CODES: tuple[tuple[tuple[type[SteppoError], ...], str], ...] = (
    ((MalformedRequest,), "INVALID_JSON"),
    ((InvalidInput,), "VALIDATION_ERROR"),
    ((CapacityExceeded, TooManyRequests), "CAPACITY_REACHED"),
    ((UnknownEnvironment, MissingData, MissingDependency), "FACTORY_ERROR"),
    ((UnknownSession, SessionExpired), "SESSION_ERROR"),
)
_UNKNOWN_TAG = frozenset({"union_tag_invalid", "union_tag_not_found"})


class UnknownFrame(InvalidInput):
    """A frame whose `type` the protocol does not have."""


def error_data(error: SteppoError) -> dict[str, JsonValue]:
    """Return the data of an error frame."""
    code = next((code for kinds, code in _CODES if isinstance(error, kinds)), "EXECUTION_ERROR")
    if isinstance(error, UnknownFrame):
        code = "UNKNOWN_TYPE"
    return {"message": error.detail, "code": code, "problem": error.to_problem()}


def frame_error(error: ValidationError) -> InvalidInput:
    """Return what is wrong with a frame."""
    kind = error.errors(include_url=False)[0]["type"]
    reason = explain(error).removeprefix("value: ")
    if kind == "json_invalid":
        return MalformedRequest(f"a message is a JSON document: {reason}")
    if kind in _UNKNOWN_TAG:
        return UnknownFrame(f"a message has the type reset, step, state, close or mcp: {reason}")
    return InvalidInput(reason)
