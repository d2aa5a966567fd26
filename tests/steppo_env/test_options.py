"""Options: bounded, explained, and the operator's where they name something on the machine."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, JsonValue, ValidationError

from steppo_env.errors import InvalidOptions
from steppo_env.options import EnvOptions, OperatorOnly, operator_fields, read_options
from steppo_env.rendering import Rendering


class Mine(EnvOptions):
    data: Annotated[Path | None, OperatorOnly()] = None
    inner: Annotated[Path, OperatorOnly()] | None = None
    many: list[Annotated[Path, OperatorOnly()]] = Field(default_factory=list)
    by_class: Annotated[str, OperatorOnly] = ""
    size: Annotated[int, Field(ge=1)] = 3


def test_the_defaults_are_valid_and_cannot_be_changed() -> None:
    options = read_options(EnvOptions, {})
    assert options == EnvOptions()
    assert (options.step_limit, options.rendering, options.malformed_penalty) == (20, "rebuilt", 0)
    with pytest.raises(ValidationError, match="frozen"):
        options.step_limit = 3  # type: ignore[misc]


def test_values_are_read_as_toml_and_json_write_them() -> None:
    options = read_options(Mine, {"rendering": "accumulated", "data": "/tmp", "size": 5})
    assert options.rendering is Rendering.ACCUMULATED
    assert options.data == Path("/tmp")
    assert options.size == 5


@pytest.mark.parametrize(
    ("values", "detail"),
    [
        ({"step_limit": 0}, "step_limit: Input should be greater than or equal to 1"),
        ({"step_limit": 1001}, "step_limit: Input should be less than or equal to 1000"),
        ({"malformed_penalty": -0.1}, "malformed_penalty: Input should be greater than or equal"),
        ({"malformed_penalty": float("nan")}, "malformed_penalty: "),
        ({"state_chars": 999}, "state_chars: Input should be greater than or equal to 1000"),
        ({"rendering": "both"}, "rendering: Input should be 'rebuilt' or 'accumulated'"),
        ({"stepLimit": 3}, "stepLimit: Extra inputs are not permitted"),
        ({"size": "big"}, "size: Input should be a valid integer"),
    ],
)
def test_a_wrong_option_is_named_with_those_there_are(
    values: dict[str, JsonValue], detail: str
) -> None:
    with pytest.raises(InvalidOptions) as caught:
        read_options(Mine, values)
    assert caught.value.detail.startswith(detail)
    assert caught.value.members["options"] == list(Mine.model_fields)
    assert all(name in caught.value.detail for name in Mine.model_fields)


def test_the_mark_of_the_operator_is_found_wherever_it_stands() -> None:
    """An overlooked mark would let a client name a file on the server."""
    assert operator_fields(Mine) == {"data", "inner", "many", "by_class"}
    assert operator_fields(EnvOptions) == frozenset()


def test_the_mark_is_inherited() -> None:
    class Theirs(Mine):
        colour: str = "red"

    assert operator_fields(Theirs) == operator_fields(Mine)
