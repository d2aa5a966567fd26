"""Routes that read and write bytes themselves and are in the OpenAPI document all the same."""

from typing import Any

from pydantic import BaseModel

from steppo_env.wire import Problem

__all__ = ["any_problem", "body_schema", "problems"]

_PROBLEM_TITLES = {
    400: "The body is not JSON",
    401: "No key that is known",
    403: "The key may not do this",
    404: "Unknown environment, task or session",
    409: "The request contradicts what has happened",
    410: "The session's lease ran out",
    413: "The body is too large",
    422: "Invalid input",
    429: "As much as one key may have",
    500: "The environment failed",
    501: "The environment needs a package that is not installed",
    503: "No room now",
    504: "The environment missed its deadline",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` argument that documents these problem statuses."""
    return {status: _problem(_PROBLEM_TITLES[status]) for status in statuses}


def any_problem() -> dict[int | str, dict[str, Any]]:
    """Return the `responses` argument that says of every route how its errors look."""
    return {"default": _problem("Every error is an RFC 9457 problem")}


def _problem(description: str) -> dict[str, Any]:
    schema = Problem.model_json_schema()
    return {
        "description": description,
        "content": {"application/problem+json": {"schema": schema}},
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
