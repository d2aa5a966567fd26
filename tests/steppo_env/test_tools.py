"""Tools: the schema that a model sees, and the check of what it sends."""

import time
from enum import StrEnum

import pytest
from pydantic import BaseModel, Field, JsonValue, ValidationError

from steppo_env.mdp import ToolCall, ToolSpec
from steppo_env.tools import Rejection, Tool, ToolArguments, Toolbox, explain


class Order(StrEnum):
    NEW = "new"
    OLD = "old"


class Search(ToolArguments):
    """Search the corpus.

    Words are matched as they are.
    """

    query: str = Field(min_length=1, description="What to look for.")
    order: Order = Order.NEW
    years: tuple[int, ...] = ()
    weight: float = 1.0


class Stop(ToolArguments):
    """Stop."""


class Titled(ToolArguments):
    title: str = Field(title="Heading")


TOOLBOX = Toolbox(Tool("search", Search), Tool("stop", Stop))


def test_the_model_sees_docstring_bounds_and_no_generated_titles() -> None:
    assert Tool("stop", Stop).spec == ToolSpec(
        "stop", "Stop.", {"type": "object", "properties": {}, "additionalProperties": False}
    )
    spec = Tool("search", Search).spec
    assert spec.description == "Search the corpus.\n\nWords are matched as they are."
    assert spec.parameters["required"] == ["query"]
    properties = spec.parameters["properties"]
    assert isinstance(properties, dict)
    assert properties["query"] == {
        "description": "What to look for.",
        "minLength": 1,
        "type": "string",
    }
    assert '"title"' not in str(spec.parameters).replace("'", '"')


def test_a_parameter_that_is_called_title_stays() -> None:
    assert Tool("cite", Titled).spec == ToolSpec(
        "cite",
        "",
        {
            "type": "object",
            "properties": {"title": {"type": "string"}},
            "required": ["title"],
            "additionalProperties": False,
        },
    )


def test_arguments_are_read_as_json() -> None:
    call = ToolCall("search", {"query": "a", "order": "old", "years": [1984], "weight": 2})
    assert TOOLBOX.read(call) == Search(query="a", order=Order.OLD, years=(1984,), weight=2.0)
    assert TOOLBOX.read(ToolCall("stop", {})) == Stop()


@pytest.mark.parametrize(
    ("arguments", "detail"),
    [
        ({}, "tool search: query: Field required"),
        ({"query": 7}, "tool search: query: Input should be a valid string, got 7"),
        ({"query": ""}, "tool search: query: String should have at least 1 character, got ''"),
        ({"query": None}, "tool search: query: Input should be a valid string, got None"),
        (
            {"query": "a", "weight": "1"},
            "tool search: weight: Input should be a valid number, got '1'",
        ),
        (
            {"query": "a", "years": ["1984"]},
            "tool search: years.0: Input should be a valid integer, got '1984'",
        ),
        (
            {"query": "a", "years": [True]},
            "tool search: years.0: Input should be a valid integer, got True",
        ),
        (
            {"query": "a", "order": "best"},
            "tool search: order: Input should be 'new' or 'old', got 'best'",
        ),
        (
            {"query": "a", "order": "x" * 99},
            f"tool search: order: Input should be 'new' or 'old', got '{'x' * 59}...",
        ),
        ({"q": 1}, "tool search: query: Field required; q: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_coerced(
    arguments: dict[str, JsonValue], detail: str
) -> None:
    assert TOOLBOX.read(ToolCall("search", arguments)) == Rejection(detail)


def test_an_unknown_tool_is_answered_with_the_known_ones() -> None:
    assert TOOLBOX.read(ToolCall("Search", {})) == Rejection(
        "there is no tool 'Search'; the tools are: search, stop"
    )


def test_what_a_model_made_up_cannot_flood_the_state() -> None:
    invented: dict[str, JsonValue] = {"x" * 100_000 + str(index): 1 for index in range(9)}
    for call in (ToolCall("y" * 100_000, {}), ToolCall("search", invented)):
        read = TOOLBOX.read(call)
        assert isinstance(read, Rejection)
        assert len(read.detail) < 1_000


def test_deep_arguments_are_refused_and_not_a_crash() -> None:
    deep: JsonValue = "x"
    for _ in range(400):
        deep = [deep]
    assert isinstance(TOOLBOX.read(ToolCall("search", {"query": deep})), Rejection)


def test_reading_takes_microseconds() -> None:
    call = ToolCall("search", {"query": "Ada Byrne"})
    started = time.perf_counter()
    for _ in range(1_000):
        TOOLBOX.read(call)
    assert time.perf_counter() - started < 1.0


def test_two_tools_cannot_share_a_name() -> None:
    with pytest.raises(ValueError, match="two tools share a name: look, look"):
        Toolbox(Tool("look", Stop), Tool("look", Search))


def test_explain_names_the_whole_when_there_is_no_path() -> None:
    with pytest.raises(ValidationError) as caught:
        Search.model_validate([])
    assert explain(caught.value).startswith("value: ")


def test_explain_limits_how_many_faults_it_lists() -> None:
    class Wide(BaseModel):
        a: int
        b: int
        c: int

    with pytest.raises(ValidationError) as caught:
        Wide.model_validate({})
    assert explain(caught.value, limit=2) == "a: Field required; b: Field required; and 1 more"
    assert explain(caught.value, limit=3).count("Field required") == 3
    assert "more" not in explain(caught.value, limit=3)
