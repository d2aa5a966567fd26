"""JSON as it stands in a column: exact, in the order of its keys."""

import json
from collections.abc import Mapping
from typing import Any, cast

from pydantic import JsonValue

from steppo_env.errors import InvalidInput
from steppo_env.store.validation import check_text

__all__ = ["dump_json", "load_json", "sorted_json"]


def dump_json(value: object, where: str) -> str:
    """Return the JSON text of a value; tuples become lists.

    Raises:
        InvalidInput: It holds something that JSON has no form for; names the place.

    >>> dump_json({"b": 1, "a": (True, 0.5)}, "info")
    '{"b":1,"a":[true,0.5]}'
    """
    try:
        text = json.dumps(
            _plain(value, where), ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{where} must be a JSON value: {error}") from None
    check_text(text, where)
    return text


def load_json(text: str) -> Any:
    """Return the value of stored JSON text."""
    return json.loads(text)


def _plain(value: object, where: str) -> JsonValue:
    """Return a value as dicts, lists and scalars, which is all that json.dumps keeps exactly."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        items = cast(Mapping[object, object], value)
        for key in items:
            # json.dumps would turn 1 into "1", and two keys into one.
            if not isinstance(key, str):
                raise InvalidInput(f"{where}: a JSON key is a string; got {key!r}")
        return {str(key): _plain(item, f"{where}.{key}") for key, item in items.items()}
    if isinstance(value, list | tuple):
        sequence = cast(list[object] | tuple[object, ...], value)
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(sequence)]
    raise InvalidInput(
        f"{where} must be a JSON value (null, a boolean, a number, a string, a list or an object "
        f"with string keys); got {type(value).__name__}"
    )


def sorted_json(text: str | None) -> str | None:
    """Return JSON text with sorted keys, to compare.

    As values, 1, 1.0 and true would be one.

    >>> sorted_json('{"b":1.0,"a":true}')
    '{"a": true, "b": 1.0}'
    """
    return None if text is None else json.dumps(json.loads(text), sort_keys=True)
