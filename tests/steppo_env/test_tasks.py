"""Task sets: by split, by index and by id."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_env.errors import UnknownTask
from steppo_env.mdp import Task
from steppo_env.tasks import GeneratedTasks, ListedTasks, TaskSet


def make(split: str, index: int) -> Task:
    return Task(f"{split}/{index}", split, {"index": index})


LISTED = ListedTasks([Task("b", "train"), Task("x", "dev"), Task("a", "train")], "v1")
GENERATED = GeneratedTasks({"train": 3, "dev": 10**17, "a/b": 2, "empty": 0}, make, "v2")


def test_listed_tasks_keep_their_order_in_each_split() -> None:
    assert dict(LISTED.splits) == {"train": 2, "dev": 1}
    assert [LISTED.at("train", index).task_id for index in (0, 1)] == ["b", "a"]
    assert LISTED.get("x") == LISTED.at("dev", 0)
    assert LISTED.version == "v1"


def test_listed_ids_are_unique_across_splits() -> None:
    with pytest.raises(ValueError, match="task id 'a' appears twice"):
        ListedTasks([Task("a", "train"), Task("a", "dev")], "1")


@pytest.mark.parametrize("tasks", [LISTED, GENERATED])
@pytest.mark.parametrize("index", [-1, 3, 10**40])
def test_there_is_no_task_outside_a_split(tasks: TaskSet[Task], index: int) -> None:
    with pytest.raises(UnknownTask, match=f"there is no task {index}"):
        tasks.at("train", index)


def test_an_unknown_split_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownTask) as caught:
        LISTED.at("test", 0)
    assert caught.value.detail == "there is no split 'test'; the splits are: train (2), dev (1)"
    with pytest.raises(UnknownTask, match="the splits are: none"):
        ListedTasks[Task]([], "1").at("train", 0)
    with pytest.raises(UnknownTask, match="split empty has no tasks"):
        GENERATED.at("empty", 0)
    with pytest.raises(UnknownTask) as long:
        LISTED.at("x" * 100_000, 0)
    assert len(long.value.detail) < 300


@pytest.mark.parametrize("split", ["train", "dev", "a/b"])
def test_generated_tasks_are_found_by_their_id(split: str) -> None:
    for index in (0, 1):
        task = GENERATED.at(split, index)
        assert task == Task(f"{split}/{index}", split, {"index": index})
        assert GENERATED.get(task.task_id) == task
    assert GENERATED.get(f"dev/{10**16}").labels == {"index": 10**16}


@pytest.mark.parametrize(
    "task_id",
    [
        *(
            "",
            "/",
            "dev",
            "dev/",
            "/1",
            "dev/01",
            "dev/+1",
            "dev/1 ",
            " dev/1",
            "dev/-1",
            "dev/1.0",
        ),
        *("dev/1_0", "dev/١", "dev/²", "dev/1/", "test/0", "train/3", "b/0"),
        "dev/" + "9" * 5_000,
        "x" * 100_000,
    ],
)
def test_only_the_canonical_spelling_is_an_id(task_id: str) -> None:
    with pytest.raises(UnknownTask) as caught:
        GENERATED.get(task_id)
    assert len(caught.value.detail) < 6_000
    with pytest.raises(UnknownTask):
        LISTED.get(task_id)


@given(st.text(max_size=12))
def test_no_text_breaks_a_look_up(task_id: str) -> None:
    for tasks in (LISTED, GENERATED):
        with contextlib.suppress(UnknownTask):
            assert tasks.get(task_id).task_id == task_id
