"""The error tree, and its way over HTTP and between processes."""

import asyncio
import pickle
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from steppo_env import errors
from steppo_env.errors import (
    PROBLEM_TYPE_PREFIX,
    CapacityExceeded,
    DeadlineExceeded,
    EnvError,
    EpisodeEnded,
    InvalidInput,
    MissingDependency,
    NotFound,
    SteppoError,
    TransportError,
    UnknownTask,
    boundary,
    error_from_problem,
)

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, SteppoError)
]
JSON: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


def test_every_class_is_exported() -> None:
    assert {cls.__name__ for cls in CLASSES} < set(errors.__all__)


def test_every_class_has_its_own_slug_and_title() -> None:
    assert len({cls.slug for cls in CLASSES}) == len(CLASSES)
    assert len({cls.title for cls in CLASSES}) == len(CLASSES)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", cls.slug) for cls in CLASSES)
    assert all(400 <= cls.status <= 599 for cls in CLASSES)


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    def drawn(cls: type[SteppoError], prefix: str = "") -> Iterator[tuple[str, str, int]]:
        yield prefix, cls.__name__, cls.status
        children = [child for child in CLASSES if cls in child.__bases__]
        # A child is indented by four characters; the last two of them are the arrow's.
        for child in children:
            yield from drawn(child, cls.__name__)

    in_docstring = []
    path: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│ ├└─]*)(\w+) +(\d{3})(?:  \((\w+)\))?$", line)
        if found:
            depth = len(found[1]) // 4
            path[depth] = found[2]
            in_docstring.append((path[depth - 1] if depth else "", found[2], int(found[3])))
            builtin = found[4] or "Exception"
            assert builtin in {base.__name__ for base in vars(errors)[found[2]].__mro__}
    assert in_docstring[0] == ("", "SteppoError", 500)
    assert sorted(in_docstring) == sorted(drawn(SteppoError))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: str(cls.__name__))
def test_every_class_survives_http_and_pickle(cls: type[SteppoError]) -> None:
    error = cls("expected 3, got 5; send 3", expected=3, got=[5, None])
    for copy in (error_from_problem(error.to_problem("/v1/x")), pickle.loads(pickle.dumps(error))):
        assert type(copy) is cls
        assert copy.detail == str(copy) == "expected 3, got 5; send 3"
        assert copy.members == {"expected": 3, "got": [5, None]}
        assert copy.args == error.args


def test_a_problem_has_the_members_of_rfc_9457_and_the_facts() -> None:
    assert EpisodeEnded("it is over", num_steps=4).to_problem("/v1/sessions/a") == {
        "type": "urn:steppo:problem:episode-ended",
        "title": "Episode ended",
        "status": 409,
        "detail": "it is over",
        "instance": "/v1/sessions/a",
        "num_steps": 4,
    }
    assert "instance" not in SteppoError("x").to_problem()


@given(members=st.dictionaries(st.text(), JSON, max_size=4))
def test_no_member_name_can_break_or_forge_a_problem(members: dict[str, JsonValue]) -> None:
    forged: dict[str, JsonValue] = {
        **members,
        **dict.fromkeys(("self", "cls", "detail", "type", "status", "instance", "problem"), "x"),
    }
    error = UnknownTask("no such task", **forged)
    problem = error.to_problem()
    assert problem["status"] == 404
    assert problem["detail"] == "no such task"
    assert "instance" not in problem
    back = error_from_problem(problem)
    assert type(back) is UnknownTask
    standard = {"type", "title", "status", "detail", "instance"}
    assert back.members == {name: v for name, v in forged.items() if name not in standard}


@given(members=st.dictionaries(st.text(), JSON, max_size=4))
def test_an_unknown_problem_keeps_every_member(members: dict[str, JsonValue]) -> None:
    problem: dict[str, JsonValue] = {
        **members,
        "type": "urn:steppo:problem:from-the-future",
        "status": 418,
        "detail": "short and stout",
    }
    error = error_from_problem(problem)
    assert type(error) is SteppoError
    assert error.detail == "short and stout"
    assert error.members["problem"] == problem
    standard = {"type", "title", "status", "detail", "instance", "problem"}
    assert all(error.members[name] == v for name, v in members.items() if name not in standard)


@pytest.mark.parametrize(
    ("problem", "detail"),
    [
        ({}, "the server gave no detail"),
        ({"type": 3, "title": "Teapot"}, "Teapot"),
        ({"type": "about:blank", "detail": None}, "the server gave no detail"),
        ({"type": ["urn:steppo:problem:not-found"], "detail": 7}, "7"),
    ],
)
def test_a_document_that_is_hardly_a_problem_is_an_error_all_the_same(
    problem: dict[str, JsonValue], detail: str
) -> None:
    error = error_from_problem(problem)
    assert type(error) is SteppoError
    assert error.detail == detail
    assert error.members == {"problem": problem}


def test_a_subclass_without_a_slug_of_its_own_does_not_replace_its_parent() -> None:
    class Careless(NotFound):
        def __init__(self) -> None:
            super().__init__("careless")

    assert Careless.slug == NotFound.slug
    rebuilt = error_from_problem({"type": PROBLEM_TYPE_PREFIX + "not-found", "detail": "gone"})
    assert type(rebuilt) is NotFound


def test_a_plugins_class_with_a_slug_is_rebuilt() -> None:
    class Rusty(EnvError):
        slug, title = "test-rusty", "Rusty"

    assert type(error_from_problem(Rusty("creaks").to_problem())) is Rusty


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (InvalidInput, ValueError),
        (NotFound, LookupError),
        (MissingDependency, ImportError),
        (TransportError, ConnectionError),
        (DeadlineExceeded, TimeoutError),
    ],
)
def test_ordinary_handlers_catch_what_they_mean(
    cls: type[SteppoError], builtin: type[Exception]
) -> None:
    with pytest.raises(builtin, match=r"^why$"):
        raise cls("why")


def test_boundary_attributes_a_foreign_exception() -> None:
    expected = pytest.raises(EnvError, match=r"^act raised KeyError: 'door'$")
    with expected as caught, boundary(EnvError, "act"):
        raise KeyError("door")
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.members == {"exception": "KeyError"}


@pytest.mark.parametrize("kind", [StopIteration, RecursionError, AssertionError])
def test_boundary_takes_exceptions_without_a_message(kind: type[Exception]) -> None:
    expected = pytest.raises(EnvError, match=rf"^act raised {kind.__name__}$")
    with expected, boundary(EnvError, "act"):
        raise kind


@pytest.mark.parametrize(
    "error",
    [CapacityExceeded("full"), KeyboardInterrupt(), SystemExit(1), asyncio.CancelledError()],
    ids=lambda error: type(error).__name__,
)
def test_boundary_lets_our_own_errors_and_cancellation_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, boundary(EnvError, "act"):
        raise error
    assert caught.value is error
