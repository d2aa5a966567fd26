import pytest

from steppo_client import LocalEnvClient, TaskRef, list_task_refs
from steppo_env.errors import InvalidInput, UnknownTask
from steppo_env.wire import TaskPage

KEYDOOR = "steppo/KeyDoor-v0"


async def test_the_first_tasks_come_in_order_over_many_pages() -> None:
    refs = await list_task_refs(LocalEnvClient(), KEYDOOR, "train", 2500)

    assert [ref.task_id for ref in refs] == [f"train/{index}" for index in range(2500)]


async def test_options_decide_which_tasks_there_are_and_go_with_them() -> None:
    (plain,) = await list_task_refs(LocalEnvClient(), KEYDOOR, "dev", 1)
    (small,) = await list_task_refs(LocalEnvClient(), KEYDOOR, "dev", 1, {"size": 2})

    assert small == TaskRef(KEYDOOR, "dev/0", "dev", small.labels, {"size": 2})
    assert plain.labels != small.labels, "a grid of 2 x 2 is no grid of 6 x 6"


async def test_more_tasks_than_there_are_is_an_error_with_their_number() -> None:
    with pytest.raises(InvalidInput, match=r"513 tasks are asked for, but split dev .* has 512"):
        await list_task_refs(LocalEnvClient(), KEYDOOR, "dev", 513)
    with pytest.raises(UnknownTask, match="nope"):
        await list_task_refs(LocalEnvClient(), KEYDOOR, "nope", 1)


async def test_a_server_that_says_more_than_it_has_does_not_keep_the_client_asking() -> None:
    class Lying(LocalEnvClient):
        async def tasks(self, *_: object, **__: object) -> TaskPage:
            return TaskPage(tasks=[], next_cursor=None, num_tasks=10)

    with pytest.raises(InvalidInput):
        await list_task_refs(Lying(), KEYDOOR, "dev", 5)
