"""Tools: an argument model gives the schema that the model sees and the check of what it sends."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from pydantic_core import ErrorDetails

from steppo_env.mdp import ToolCall, ToolSpec

__all__ = ["Rejection", "Tool", "ToolArguments", "Toolbox", "explain"]


MAX_SHOWN = 60
"""Longest value that an error tells, in characters."""


class ToolArguments(BaseModel):
    """Base of argument models; its docstring in a subclass is the tool's description."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a call is not executed, addressed to the model."""

    detail: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A name and the model of its arguments."""

    name: str
    arguments: type[ToolArguments]

    @property
    def spec(self) -> ToolSpec:
        """The tool as an OpenAI function schema."""
        schema = self.arguments.model_json_schema()
        description = str(schema.pop("description", "")).strip()
        return ToolSpec(self.name, description, cast(Mapping[str, JsonValue], _untitled(schema)))


class Toolbox:
    """The tools of one environment, by name.

    >>> class Search(ToolArguments):
    ...     '''Search the corpus.'''
    ...     query: str
    >>> toolbox = Toolbox(Tool("search", Search))
    >>> toolbox.read(ToolCall("search", {"query": "Ada"}))
    Search(query='Ada')
    >>> toolbox.read(ToolCall("search", {"q": 1})).detail
    'tool search: query: Field required; q: Extra inputs are not permitted'
    >>> toolbox.read(ToolCall("serach", {})).detail
    "there is no tool 'serach'; the tools are: search"
    """

    def __init__(self, *tools: Tool) -> None:
        self._tools = {tool.name: tool for tool in tools}
        if len(self._tools) < len(tools):
            raise ValueError(f"two tools share a name: {', '.join(tool.name for tool in tools)}")
        self.specs = tuple(tool.spec for tool in tools)

    def read(self, call: ToolCall) -> ToolArguments | Rejection:
        """Return the checked arguments of a call, or why it cannot be executed."""
        tool = self._tools.get(call.name)
        if tool is None:
            names = ", ".join(self._tools)
            return Rejection(f"there is no tool {call.name[:80]!r}; the tools are: {names}")
        try:
            # As JSON: strict models take a list for a tuple and a string for an enum only then.
            return tool.arguments.model_validate_json(json.dumps(dict(call.arguments)))
        except ValidationError as error:
            return Rejection(f"tool {call.name}: {explain(error)}")


def explain(error: ValidationError, limit: int = 5) -> str:
    """Return a validation error on one line: `path: what was expected, got what came`.

    Args:
        limit: Most faults that are told; the others are counted.
    """
    errors = error.errors(include_url=False, include_context=False)
    # A path can hold a key that somebody made up, of any length.
    paths = [".".join(map(str, item["loc"]))[:80] or "value" for item in errors]
    lines = [f"{path}: {item['msg']}{_came(item)}" for path, item in zip(paths, errors)]
    if len(lines) > limit:
        lines = [*lines[:limit], f"and {len(lines) - limit} more"]
    return "; ".join(lines)


def _came(fault: ErrorDetails) -> str:
    """Return what came in place of what was expected, where it is short enough to tell."""
    value = fault["input"]
    tells_enough = fault["type"] in ("missing", "extra_forbidden", "json_invalid", "value_error")
    if tells_enough or not isinstance(value, str | int | float | None):
        return ""
    shown = repr(value)
    return f", got {shown if len(shown) <= MAX_SHOWN else shown[:MAX_SHOWN] + '...'}"


def _untitled(schema: JsonValue) -> JsonValue:
    """Drop pydantic's generated titles: they cost prompt tokens and tell the model nothing."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _untitled(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }
