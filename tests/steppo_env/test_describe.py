"""What everybody may see of environments and tasks."""

from collections.abc import Callable

import pytest

from steppo_env.catalogue import EnvSpec
from steppo_env.describe import describe, list_tasks, summarize
from steppo_env.errors import InvalidInput, InvalidOptions, MissingDependency, UnknownTask
from steppo_env.wire import EnvSummary, TaskPage

Install = Callable[..., None]
KEYDOOR = EnvSpec("steppo/KeyDoor-v0", "steppo/KeyDoor-v0")
SMALL = EnvSpec("small", "steppo/KeyDoor-v0", {"size": 3})


def test_a_summary_is_the_first_line_of_the_docstring(install_plugin: Install) -> None:
    install_plugin({"stub/Good-v0": "stub_envs:Good"})
    assert summarize(EnvSpec("boxes", "stub/Good-v0")) == EnvSummary(
        env_id="boxes",
        registered_id="stub/Good-v0",
        summary="Open the box: the word stands under it.",
        is_available=True,
    )


@pytest.mark.parametrize("source", ["import not_installed_anywhere", "1 / 0", "Bad = 3"])
def test_a_plugin_that_cannot_be_loaded_is_listed_with_its_problem(
    install_plugin: Install, source: str
) -> None:
    install_plugin({"plugin/Bad-v0": "plugin_bad:Bad"}, {"plugin_bad": source})
    summary = summarize(EnvSpec("bad", "plugin/Bad-v0"))
    assert (summary.env_id, summary.registered_id) == ("bad", "plugin/Bad-v0")
    assert not summary.is_available
    assert summary.problem is not None
    assert "plugin/Bad-v0" in summary.problem


def test_what_cannot_be_loaded_cannot_be_described(install_plugin: Install) -> None:
    install_plugin({"plugin/Bad-v0": "plugin_bad:Bad"}, {"plugin_bad": "import not_installed"})
    with pytest.raises(MissingDependency, match="not_installed"):
        describe(EnvSpec("bad", "plugin/Bad-v0"))


def test_a_description_has_splits_and_options() -> None:
    detail = describe(KEYDOOR)
    assert detail.splits == {"train": 100_000, "dev": 512, "test": 512}
    assert detail.data_version == "keydoor-6-1"
    assert detail.step_limit == 24
    assert detail.fixed_options == []
    properties = detail.options["properties"]
    assert isinstance(properties, dict)
    assert set(properties) == {
        "malformed_penalty",
        "rendering",
        "size",
        "state_chars",
        "step_rewards",
        "step_limit",
    }
    assert detail.model_dump().items() >= summarize(KEYDOOR).model_dump().items()


def test_a_variant_says_what_it_fixes(install_plugin: Install) -> None:
    assert describe(SMALL).fixed_options == ["size"]
    assert describe(SMALL).data_version == "keydoor-3-1"
    install_plugin({"stub/WithData-v0": "stub_envs:WithData"})
    fixed = EnvSpec("boxes", "stub/WithData-v0", {"step_limit": 3})
    assert describe(fixed).fixed_options == ["data", "step_limit"]
    assert describe(fixed).step_limit == 3


def test_a_callers_options_decide_what_is_described() -> None:
    assert describe(KEYDOOR, {"size": 4}).data_version == "keydoor-4-1"
    with pytest.raises(InvalidOptions, match="size: set by whoever runs small"):
        describe(SMALL, {"size": 4})
    assert describe(SMALL, {"size": 4}, is_operator=True).data_version == "keydoor-4-1"


def test_pages_hold_each_task_once_and_in_order() -> None:
    pages: list[TaskPage] = []
    cursor: str | None = None
    while not pages or cursor is not None:
        pages.append(list_tasks(KEYDOOR, "dev", limit=200, cursor=cursor))
        cursor = pages[-1].next_cursor
    assert [len(page.tasks) for page in pages] == [200, 200, 112]
    listed = [task for page in pages for task in page.tasks]
    assert [task.task_id for task in listed] == [f"dev/{index}" for index in range(512)]
    assert [task.index for task in listed] == list(range(512))
    assert {page.num_tasks for page in pages} == {512}


def test_a_page_that_ends_with_the_last_task_is_the_last() -> None:
    assert list_tasks(KEYDOOR, "dev", limit=512).next_cursor is None
    assert list_tasks(KEYDOOR, "dev", limit=511).next_cursor == "511"
    after = list_tasks(KEYDOOR, "dev", limit=1, cursor="512")
    assert (after.tasks, after.next_cursor) == ([], None)


def test_a_listed_task_shows_its_labels_and_nothing_else() -> None:
    (task,) = list_tasks(SMALL, "test", limit=1).tasks
    assert set(task.model_dump()) == {"task_id", "split", "index", "labels"}
    assert set(task.labels) == {"distance"}
    sizes = {
        size: list_tasks(KEYDOOR, "test", limit=20, options={"size": size}).tasks for size in (3, 9)
    }
    assert sizes[3] != sizes[9]


@pytest.mark.parametrize("cursor", ["", "-1", "1.5", "x", "513", "٣", "9" * 5_000, " 1"])
def test_a_cursor_of_ones_own_making_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInput, match="was not given by this list") as caught:
        list_tasks(KEYDOOR, "dev", limit=10, cursor=cursor)
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize("limit", [0, -1])
def test_a_page_of_nothing_is_refused(limit: int) -> None:
    """Its next cursor would be its own, and a client would read it for ever."""
    with pytest.raises(InvalidInput, match=f"the limit is at least 1, not {limit}"):
        list_tasks(KEYDOOR, "dev", limit=limit)


def test_an_unknown_split_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownTask, match=r"train \(100000\), dev \(512\), test \(512\)"):
        list_tasks(KEYDOOR, "validation", limit=10)
