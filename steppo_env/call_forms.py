"""The JSON shapes in which models write a tool call, and the log of what was wrong with them."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Final, TypeGuard

from pydantic import JsonValue

from steppo_env.mdp import IssueKind, ParseIssue, ToolCall
from steppo_env.relaxed_json import Reading, Unreadable, excerpt, read_document

__all__ = ["CALL_FORMAT", "IssueLog", "is_well_formed", "read_call", "read_native_call"]

CALL_FORMAT: Final = '<tool_call>{"name": "...", "arguments": {...}}</tool_call>'


class IssueLog:
    """Collects issues in order, and stops quoting after `limit` of a kind.

    The details go back to the model: a response of a thousand broken tags must not become an
    observation of a thousand sentences.
    """

    def __init__(self, limit: int = 16) -> None:
        self._limit = limit
        self._issues: list[ParseIssue] = []
        self._counts: Counter[IssueKind] = Counter()

    def recovered(self, detail: str) -> None:
        self._add(IssueKind.RECOVERED, detail)

    def ignored(self, detail: str) -> None:
        self._add(IssueKind.IGNORED, detail)

    def rejected(self, detail: str) -> None:
        self._add(IssueKind.REJECTED, detail)

    def relaxed(self, where: str, reading: Reading) -> None:
        """Report what a reading had to forgive, if anything."""
        if reading.relaxations:
            slips = ", ".join(reading.relaxations)
            self.recovered(f"{where} was read although its JSON has {slips}; write strict JSON")

    def issues(self) -> tuple[ParseIssue, ...]:
        """Return the issues, with one more per kind that counts what was left out."""
        rest = (
            ParseIssue(kind, f"{count - self._limit} more parts of the response were {kind}")
            for kind, count in self._counts.items()
            if count > self._limit
        )
        return (*self._issues, *rest)

    def _add(self, kind: IssueKind, detail: str) -> None:
        self._counts[kind] += 1
        if self._counts[kind] <= self._limit:
            self._issues.append(ParseIssue(kind, detail))


def is_well_formed(value: JsonValue) -> bool:
    """True for the documented shape: a name, and an object of arguments or none at all."""
    if not isinstance(value, dict) or not _is_name(value.get("name")):
        return False
    if "arguments" not in value:
        return len(value) == 1
    return isinstance(value["arguments"], dict) and "parameters" not in value


def _is_name(name: object) -> TypeGuard[str]:
    return isinstance(name, str) and bool(name.strip())


def read_call(
    value: JsonValue, where: str, log: IssueLog, call_id: str | None = None
) -> ToolCall | None:
    """Turn a decoded JSON value into a call, or log why it is none.

    Args:
        value: What stood in the block.
        where: How to name the call to the model, such as "tool call 2".
        log: Receives every deviation from the documented shape.
        call_id: The id to give to the call.
    """
    if not isinstance(value, dict):
        _refuse(where, "a JSON object", value, log)
        return None
    if "name" not in value and isinstance(value.get("function"), dict):
        log.recovered(f'{where} was read although it is nested in "function"; write {CALL_FORMAT}')
        return read_call(value["function"], where, log, call_id)
    name = value.get("name")
    if not _is_name(name):
        _refuse(where, 'a tool\'s name, a string, under "name"', value, log)
        return None
    found = _find_arguments(value, where, log)
    arguments = None if found is None else _object_of(found[0], where, log)
    return None if arguments is None else ToolCall(name, arguments, call_id)


def _find_arguments(
    value: dict[str, JsonValue], where: str, log: IssueLog
) -> tuple[JsonValue] | None:
    """Return what stands for the arguments, in a tuple because null may stand there."""
    named = [key for key in ("arguments", "parameters") if key in value]
    if named == ["parameters"]:
        log.recovered(
            f'{where} was read although its arguments stand under "parameters"; '
            'write them under "arguments"'
        )
        return (value["parameters"],)
    if named == ["arguments"]:
        return (value["arguments"],)
    # {"name": "search", "query": "x"}: to drop the query without a word would be a guess too.
    if named or value.keys() - {"name", "id", "type"}:
        _refuse(where, 'its arguments, all of them and only once, under "arguments"', value, log)
        return None
    return ({},)


def _object_of(arguments: JsonValue, where: str, log: IssueLog) -> dict[str, JsonValue] | None:
    if isinstance(arguments, dict):
        return arguments
    if not isinstance(arguments, str):
        _refuse(where, 'an object under "arguments"', arguments, log)
        return None
    reading = read_document(arguments)
    if isinstance(reading, Unreadable) or not isinstance(reading.value, dict):
        _refuse(where, 'an object under "arguments"', arguments, log)
        return None
    log.recovered(f"{where} was read although its arguments are a string; write them as an object")
    log.relaxed(where, reading)
    return reading.value


def _refuse(where: str, expected: str, found: JsonValue, log: IssueLog) -> None:
    text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    log.rejected(f"{where} must have {expected}, but {excerpt(text)} came; write {CALL_FORMAT}")


def read_native_call(item: JsonValue, where: str, log: IssueLog, call_id: str) -> ToolCall | None:
    """Turn one entry of an OpenAI message's `tool_calls` into a call, or log why it is none."""
    function = item.get("function") if isinstance(item, Mapping) else None
    if not isinstance(function, Mapping):
        log.rejected(f'{where} must have an object under "function"; call the tool again')
        return None
    name = _plain(function.get("name"), where, log)
    if not _is_name(name):
        log.rejected(f"{where} has no name; call the tool again by its name")
        return None
    arguments = function.get("arguments")
    # Servers send null or "" for a tool without parameters.
    if arguments is None or (isinstance(arguments, str) and not arguments.strip()):
        return ToolCall(name, {}, call_id)
    if isinstance(arguments, str):
        reading = read_document(arguments)
    else:
        reading = _as_reading(arguments)
        if isinstance(arguments, Mapping):
            log.recovered(f"{where} was read although its arguments are no JSON string")
    if isinstance(reading, Unreadable):
        log.rejected(
            f"the arguments of {where} are not JSON: {reading.reason}; "
            "write them as one JSON object"
        )
        return None
    if not isinstance(reading.value, dict):
        shown = excerpt(json.dumps(reading.value, ensure_ascii=False))
        log.rejected(
            f"the arguments of {where} must be a JSON object, but {shown} came; "
            "write them as one JSON object"
        )
        return None
    log.relaxed(where, reading)
    return ToolCall(name, reading.value, call_id)


def _plain(value: object, where: str, log: IssueLog) -> JsonValue:
    reading = _as_reading(value)
    if isinstance(reading, Unreadable):
        return None
    log.relaxed(where, reading)
    return reading.value


def _as_reading(value: object) -> Reading | Unreadable:
    """Pass a decoded value through JSON once more, so that the same rules hold for it."""
    try:
        return read_document(json.dumps(dict(value) if isinstance(value, Mapping) else value))
    except (TypeError, ValueError, RecursionError) as error:
        return Unreadable(f"{type(error).__name__}: {excerpt(str(error))}")
