"""Groups and forks: sessions that begin alike, and sessions that share a past."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from steppo_env.errors import (
    CapacityExceeded,
    EnvError,
    InvalidInput,
    ReplayDiverged,
    SessionExists,
    SteppoError,
    TooManyRequests,
    UnknownSession,
    UnknownTask,
)
from steppo_env.wire import CreateGroup, ForkReply, ForkRequest, GroupReply, StepReply
from steppo_server.families import create_group, fork_session
from steppo_server.sessions import SessionManager
from tests.server.driving import LIGHT, OWNER, SAVING, STUB, new, state, step, take

if TYPE_CHECKING:
    from tests.server.conftest import Control, Managers

pytestmark = pytest.mark.anyio

KEYDOOR = "steppo/KeyDoor-v0"


async def group(manager: SessionManager, owner: str = OWNER, **members: Any) -> GroupReply:
    given = {"env_id": STUB, "task_id": "train-0", "size": 3, "group_id": "g", **members}
    body = await create_group(manager, owner, CreateGroup.model_validate(given))
    return GroupReply.model_validate_json(body)


async def fork(manager: SessionManager, session_id: str = "s", **members: Any) -> ForkReply:
    request = ForkRequest.model_validate({"fork_id": "f", **members})
    return ForkReply.model_validate_json(await fork_session(manager, OWNER, session_id, request))


async def has(manager: SessionManager, *session_ids: str) -> list[bool]:
    """Return which of the sessions there are, in memory or in the journal."""
    keys = [f"{OWNER}:{session_id}" for session_id in session_ids]
    return [key in manager._table or await manager.journal.load(key) is not None for key in keys]


# Groups.


async def test_the_members_of_a_group_begin_alike_and_go_their_own_ways(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    reply = await group(manager, seed=4)
    assert [member.session_id for member in reply.sessions] == ["g.0", "g.1", "g.2"]
    assert {member.trace_key for member in reply.sessions} == {reply.trace_key}
    assert {member.seed for member in reply.sessions} == {4}
    await take(manager, 0, "left", "g.0")
    await take(manager, 0, "right", "g.1")
    keys = {(await state(manager, f"g.{place}")).trace_key for place in range(3)}
    assert len(keys) == 3
    journalled = await manager.journal.load(f"{OWNER}:g.1")
    assert journalled is not None
    assert journalled.row.group_id == "g"


async def test_a_group_of_keydoor_is_the_episode_of_its_place(managers: Managers) -> None:
    manager = managers()
    reply = await group(manager, env_id=KEYDOOR, task_id=None, split="dev", index=7, seed=5)
    alone = await manager.create(OWNER, new("s", env_id=KEYDOOR, task_id="dev/7", seed=5))
    assert reply.trace_key.encode() in alone


async def test_a_group_without_an_id_is_another_one_each_time(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    first, second = [await group(manager, group_id=None) for _ in range(2)]
    assert first.group_id != second.group_id
    assert manager.num_sessions == 6


async def test_the_same_group_again_is_the_same_bytes_also_after_a_step_and_a_restart(
    control: Control, managers: Managers, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    manager = managers(journal=url)
    request = CreateGroup(env_id=STUB, task_id="train-0", size=3, group_id="g")
    first = await create_group(manager, OWNER, request)
    assert await create_group(manager, OWNER, request) == first
    await take(manager, 0, "a", "g.1")
    assert await create_group(manager, OWNER, request) == first
    assert await create_group(managers(journal=url), OWNER, request) == first
    assert (await take(manager, 1, "b", "g.1")).step_index == 1


async def test_another_group_under_an_id_in_use_is_refused_and_harms_nothing(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await group(manager)
    with pytest.raises(SessionExists):
        await group(manager, seed=1)
    with pytest.raises(SessionExists):
        await group(manager, seed=1, size=5)
    assert await has(manager, "g.0", "g.1", "g.2", "g.3", "g.4") == [True] * 3 + [False] * 2


async def test_an_environment_that_does_not_begin_alike_is_refused_and_nothing_is_left(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    for group_id in ("g", None):
        with pytest.raises(EnvError, match="3 different episodes") as caught:
            await group(manager, task_id="luck", group_id=group_id)
        assert caught.value.members["trainable"] is False
    assert await has(manager, "g.0", "g.1", "g.2") == [False] * 3
    assert (manager.num_sessions, control.num_begun, control.num_closed) == (0, 6, 6)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_sessions": 2}, CapacityExceeded),
        ({"max_sessions_per_key": 2}, TooManyRequests),
    ],
    ids=["server", "key"],
)
async def test_a_group_for_which_there_is_no_room_leaves_nothing_and_can_be_asked_for_again(
    control: Control, managers: Managers, settings: dict[str, int], error: type[SteppoError]
) -> None:
    manager = managers(**settings)
    for _ in range(2):
        with pytest.raises(error):
            await group(manager)
        assert await has(manager, "g.0", "g.1", "g.2") == [False] * 3
    reply = await group(manager, size=2)
    assert [member.session_id for member in reply.sessions] == ["g.0", "g.1"]


async def test_a_group_that_fails_spares_members_that_were_there_before(
    control: Control, managers: Managers
) -> None:
    manager = managers(max_sessions=3)
    await group(manager, size=2)
    await take(manager, 0, "a", "g.1")
    with pytest.raises(CapacityExceeded):
        await group(manager, size=4)
    assert await has(manager, "g.0", "g.1", "g.2", "g.3") == [True, True, False, False]
    assert (await take(manager, 1, "b", "g.1")).step_index == 1


async def test_a_group_of_a_task_that_is_not_there_is_told(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    with pytest.raises(UnknownTask):
        await group(manager, task_id="none")
    assert manager.num_sessions == 0


# Forks.


@pytest.mark.parametrize("env_id", [STUB, LIGHT, SAVING])
async def test_forks_at_every_step_are_where_the_parent_was(
    control: Control, managers: Managers, env_id: str
) -> None:
    manager = managers()
    created = await manager.create(OWNER, new(env_id=env_id, options={"rendering": "accumulated"}))
    replies = [await take(manager, index, f"go {index}") for index in range(3)]
    keys = [(await state(manager)).trace_key]
    for at_step in range(4):
        reply = await fork(manager, at_step=at_step, count=2, fork_id=f"f{at_step}")
        assert (reply.parent_id, reply.at_step) == ("s", at_step)
        expected = replies[at_step - 1].trace_key if at_step else None
        for place, session in enumerate(reply.sessions):
            assert session.session_id == f"f{at_step}.{place}"
            assert session.step_index == at_step
            assert session.trace_key == reply.trace_key
            assert expected in (None, session.trace_key)
            if at_step:
                assert session.observation == replies[at_step - 1].observation
            else:
                assert session.trace_key.encode() in created
    # Each goes on as the parent would have.
    for at_step in range(3):
        taken = await take(manager, at_step, f"go {at_step}", f"f{at_step}.1")
        assert taken.trace_key == replies[at_step].trace_key
    assert [(await state(manager)).trace_key] == keys


async def test_only_the_present_is_copied_and_the_past_is_replayed(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new(env_id=SAVING))
    await take(manager, 0, "a")
    await take(manager, 1, "b")
    await fork(manager, count=3)
    assert (control.num_loaded, control.acts) == (3, ["a", "b"])
    await fork(manager, at_step=1, fork_id="past")
    assert (control.num_loaded, control.acts) == (3, ["a", "b", "a"])


async def test_a_fork_of_a_fork_of_a_fork_has_the_whole_past(
    control: Control, managers: Managers, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    manager = managers(journal=url)
    await manager.create(OWNER, new("f-1.0", env_id=SAVING))
    alone = managers()
    await alone.create(OWNER, new(env_id=SAVING))
    for index in range(4):
        await take(manager, index, f"go {index}", f"f{index - 1}.0")
        expected = await take(alone, index, f"go {index}")
        reply = await fork(manager, f"f{index - 1}.0", fork_id=f"f{index}")
        assert reply.trace_key == expected.trace_key
    after = managers(journal=url)
    assert (await state(after, "f3.0")).trace_key == (await state(alone)).trace_key
    assert (await fork(after, "f3.0", at_step=2, fork_id="g")).at_step == 2


async def test_the_shared_steps_can_be_asked_for_again_at_a_fork(
    control: Control, managers: Managers, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    manager = managers(journal=url)
    await manager.create(OWNER, new(env_id=SAVING))
    parents = [await take(manager, index, f"go {index}") for index in range(3)]
    await fork(manager)
    requests = [step(index, f"go {index}") for index in range(3)]
    replies = [await manager.step(OWNER, "f.0", request) for request in requests]
    for own, parent in zip(map(StepReply.model_validate_json, replies), parents):
        assert (own.session_id, own.trace_key) == ("f.0", parent.trace_key)
        assert (own.reward, own.observation) == (parent.reward, parent.observation)
    after = managers(journal=url)
    assert [await after.step(OWNER, "f.0", request) for request in requests] == replies


async def test_a_failed_session_is_forked_before_its_failure(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new())
    taken = await take(manager, 0, "a")
    with pytest.raises(EnvError):
        await take(manager, 1, "raise")
    reply = await fork(manager)
    assert (reply.at_step, reply.trace_key) == (1, taken.trace_key)
    assert reply.sessions[0].trainable is True
    assert (await take(manager, 1, "b", "f.0")).trainable is True
    with pytest.raises(InvalidInput, match="steps 0 to 1, not 2"):
        await fork(manager, at_step=2, fork_id="late")
    assert (await state(manager)).trainable is False


async def test_a_fork_of_an_episode_that_ended_has_ended_and_one_of_its_past_has_not(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new(env_id=SAVING))
    await take(manager, 0, "a")
    await take(manager, 1, "end")
    assert (await fork(manager)).sessions[0].terminated is True
    assert (await state(manager, "f.0")).terminated is True
    assert (await fork(manager, at_step=1, fork_id="past")).sessions[0].terminated is False
    assert (await take(manager, 1, "b", "past.0")).terminated is False


async def test_the_journal_knows_where_a_fork_comes_from_and_no_group_of_it(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await group(manager)
    await take(manager, 0, "a", "g.1")
    await fork(manager, "g.1")
    journalled = await manager.journal.load(f"{OWNER}:f.0")
    assert journalled is not None
    row = journalled.row
    assert (row.parent_id, row.parent_step, row.group_id) == (f"{OWNER}:g.1", 1, None)


async def test_the_same_fork_again_is_the_same_bytes_also_when_the_parent_went_on(
    control: Control, managers: Managers, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    manager = managers(journal=url)
    await manager.create(OWNER, new(env_id=SAVING))
    await take(manager, 0, "a")
    request = ForkRequest(count=2, fork_id="f")
    first = await fork_session(manager, OWNER, "s", request)
    assert await fork_session(manager, OWNER, "s", request) == first
    await take(manager, 1, "b")
    await take(manager, 1, "c", "f.1")
    assert await fork_session(manager, OWNER, "s", request) == first
    assert await fork_session(managers(journal=url), OWNER, "s", request) == first


async def test_another_fork_under_an_id_in_use_is_refused_and_harms_nothing(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new())
    await manager.create(OWNER, new("other", seed=1))
    await take(manager, 0)
    await fork(manager, count=2)
    for session_id, members in (("s", {"at_step": 0}), ("s", {"at_step": 0, "count": 4})):
        with pytest.raises(SessionExists):
            await fork(manager, session_id, **members)
    with pytest.raises(SessionExists):
        await fork(manager, "other")
    assert await has(manager, "f.0", "f.1", "f.2", "f.3") == [True, True, False, False]
    with pytest.raises(SessionExists):
        await fork(manager, fork_id="f", at_step=0, count=1)
    assert (await take(manager, 1, "go", "f.1")).step_index == 1


async def test_the_parent_is_left_as_it_is(control: Control, managers: Managers) -> None:
    manager = managers()
    await manager.create(OWNER, new(env_id=SAVING))
    last = await manager.step(OWNER, "s", step(0, "a"))
    before = await manager.journal.load(f"{OWNER}:s")
    await fork(manager, count=4)
    await take(manager, 1, "x", "f.2")
    await manager.delete(OWNER, "f.3")
    after = await manager.journal.load(f"{OWNER}:s")
    assert before is not None
    assert after is not None
    assert after.steps == before.steps
    assert await manager.step(OWNER, "s", step(0, "a")) == last
    await manager.delete(OWNER, "s")
    assert (await take(manager, 1, "y", "f.0")).step_index == 1


async def test_a_past_that_does_not_come_out_again_is_told_and_nothing_is_left(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new())
    await take(manager, 0, "luck")
    control.luck += 1
    with pytest.raises(ReplayDiverged) as caught:
        await fork(manager, count=3)
    assert caught.value.members["trainable"] is False
    assert await has(manager, "f.0", "f.1", "f.2") == [False] * 3
    assert manager.num_sessions == 1
    assert (await take(manager, 1)).step_index == 1


async def test_forks_for_which_there_is_no_room_leave_nothing(
    control: Control, managers: Managers
) -> None:
    manager = managers(max_sessions=3)
    await manager.create(OWNER, new())
    await take(manager, 0)
    for _ in range(2):
        with pytest.raises(CapacityExceeded):
            await fork(manager, count=3)
        assert await has(manager, "f.0", "f.1", "f.2") == [False] * 3
    assert len((await fork(manager, count=2)).sessions) == 2


async def test_a_session_that_is_not_there_has_no_forks(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await manager.create("somebody", new())
    with pytest.raises(UnknownSession):
        await fork(manager)
