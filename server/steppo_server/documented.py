"""Routes that read and write bytes themselves and are in the OpenAPI document all the same."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from steppo_env.errors import (
    CapacityExceeded,
    Conflict,
    DeadlineExceeded,
    EnvError,
    EnvironmentChanged,
    EpisodeEnded,
    Forbidden,
    InvalidInput,
    InvalidOptions,
    MalformedRequest,
    MissingData,
    MissingDependency,
    NotReady,
    PayloadTooLarge,
    ReplayDiverged,
    SessionExists,
    SessionExpired,
    StepConflict,
    StepIndexMismatch,
    SteppoError,
    StoreError,
    TooManyRequests,
    TransportError,
    Unauthorized,
    UnknownEnvironment,
    UnknownSession,
    UnknownTask,
    WorkerDied,
)
from steppo_env.wire import Problem
from steppo_server.problems import BUG

__all__ = ["PROBLEMS", "any_problem", "body_schema", "problems"]

_PROBLEM_TITLES = {
    400: "The body is not JSON",
    401: "No key that is known",
    403: "The key may not do this",
    404: "Unknown environment, task or session, or missing data",
    409: "The request contradicts what has happened",
    410: "The session's lease ran out",
    413: "The body is too large",
    422: "Invalid input",
    429: "As much as one key may have",
    500: "The environment, the journal or the server failed",
    501: "The environment needs a package that is not installed",
    503: "No room now, or a worker died: send it again",
    504: "The environment missed its deadline",
}

PROBLEMS: tuple[SteppoError, ...] = (
    MalformedRequest("the body is not a JSON document: Invalid JSON: EOF while parsing an object"),
    Unauthorized("the bearer key is not known here"),
    Forbidden("this needs a key with the scope 'expert'", scope="expert"),
    UnknownEnvironment("there is no environment 'steppo/Chess-v0'"),
    UnknownTask("split dev has tasks 0 to 511; there is no task 600"),
    UnknownSession("there is no session 'mine'"),
    MissingData("there is no pack packs/hotpotqa"),
    Conflict("the index of packs/hotpotqa is being built; wait until it is done"),
    EpisodeEnded("session mine ended after 7 steps", num_steps=7, trainable=True),
    StepIndexMismatch("the next step of session mine is 1, not 3", expected=1),
    StepConflict("step 0 of session mine was taken with another action", step_index=0),
    SessionExists("session mine exists with another request"),
    ReplayDiverged("the actions of session mine led elsewhere", trainable=False),
    EnvironmentChanged("session mine was begun with another version", trainable=False),
    SessionExpired(
        "the lease of session mine ran out after 3 steps",
        num_steps=3,
        last_step_index=2,
        trainable=False,
    ),
    PayloadTooLarge("a body may have 8000000 bytes", max_body_bytes=8_000_000),
    InvalidInput("sed: Extra inputs are not permitted"),
    InvalidOptions("data: set by whoever runs hotpotqa, not by its callers", options=["data"]),
    TooManyRequests("this key has 20000 sessions, as many as a key may have", retry_after_s=5),
    EnvError("act raised KeyError: 'door'", exception="KeyError", trainable=False),
    StoreError("the journal cannot be written: database or disk is full"),
    SteppoError(BUG),
    MissingDependency("TextWorld is not installed: pip install 'steppo-env[textworld]'"),
    CapacityExceeded("there are 20000 sessions, as many as this server takes", retry_after_s=5),
    WorkerDied("the process of steppo/TextWorld-v0 died during step", was_begun=True),
    NotReady("the server stops soon", reason="draining"),
    TransportError("the search service could not be reached"),
    DeadlineExceeded("the environment did not answer within 60 s", deadline_s=60.0),
)
"""One of every type that the API answers, by status."""
_OF_ANY_CALL = (Unauthorized, Forbidden, SteppoError)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` argument that documents these problem statuses, each with its types."""
    return {
        status: _problem(
            _PROBLEM_TITLES[status], [error for error in PROBLEMS if error.status == status]
        )
        for status in statuses
    }


def any_problem() -> dict[int | str, dict[str, Any]]:
    """Return the `responses` argument that says of every route how its errors look.

    It shows those that any call can get; the others stand with their statuses.
    """
    shown = [error for error in PROBLEMS if type(error) in _OF_ANY_CALL]
    return {"default": _problem("Every error is an RFC 9457 problem", shown)}


def _problem(description: str, errors: Iterable[SteppoError]) -> dict[str, Any]:
    # Examples and no enum of types: a newer server may have more, and clients read those too.
    return {
        "description": description,
        "content": {
            "application/problem+json": {
                "schema": Problem.model_json_schema(),
                "examples": {error.slug: {"value": error.to_problem()} for error in errors},
            }
        },
    }


def body_schema(model: type[BaseModel], *, is_required: bool = True) -> dict[str, Any]:
    """Return the `openapi_extra` argument that documents a body which the route reads itself."""
    return {
        "requestBody": {
            "required": is_required,
            "content": {"application/json": {"schema": _inlined(model.model_json_schema())}},
        }
    }


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Replace references into the schema's own definitions, which OpenAPI would look up elsewhere."""
    definitions = schema.pop("$defs", {})

    def resolve(value: Any) -> Any:
        if isinstance(value, list):
            return [resolve(item) for item in value]
        if not isinstance(value, dict):
            return value
        reference = value.get("$ref")
        if isinstance(reference, str):
            name = reference.removeprefix("#/$defs/")
            if name == "JsonValue":  # recursive: any JSON value
                return {}
            return resolve(definitions[name])
        return {key: resolve(item) for key, item in value.items()}

    resolved: dict[str, Any] = resolve(schema)
    return resolved
