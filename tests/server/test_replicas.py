"""Two servers on one journal: whichever is asked, a session is one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import anyio
import pytest

from steppo_env.errors import (
    EnvError,
    EpisodeEnded,
    StepConflict,
    StepIndexMismatch,
    UnknownSession,
)
from steppo_env.wire import ForkReply, ForkRequest
from steppo_server.families import fork_session
from steppo_server.sessions import SessionManager
from tests.server.driving import LIGHT, OWNER, SAVING, STUB, Attempt, new, state, step, take

if TYPE_CHECKING:
    from tests.server.conftest import Control, Managers

pytestmark = pytest.mark.anyio


class Databases(Protocol):
    """The PostgreSQL server of the test session, as tests/conftest.py makes it."""

    def new_database(self) -> str: ...


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(
    request: pytest.FixtureRequest, managers: Managers, tmp_path: Path
) -> tuple[SessionManager, SessionManager]:
    """Return two managers on one journal."""
    url = f"sqlite:///{tmp_path}/journal.db"
    if request.param == "postgresql":
        databases: Databases = request.getfixturevalue("postgres")
        url = databases.new_database()
    return managers(journal=url), managers(journal=url)


Pair = tuple[SessionManager, SessionManager]


async def side_by_side(*calls: Callable[[], Awaitable[object]]) -> list[Attempt]:
    attempts = [Attempt(call) for call in calls]
    async with anyio.create_task_group() as group:
        for attempt in attempts:
            group.start_soon(attempt.run)
    return attempts


@pytest.mark.parametrize("env_id", [STUB, SAVING])
async def test_a_session_goes_on_wherever_it_is_asked(
    control: Control, pair: Pair, env_id: str
) -> None:
    one, other = pair
    first = await one.create(OWNER, new(env_id=env_id))
    assert await other.create(OWNER, new(env_id=env_id)) == first
    replies = []
    for index, manager in enumerate([one, other, other, one, other, one, one]):
        replies.append(await manager.step(OWNER, "s", step(index, f"go {index}")))
    for manager in pair:
        for index, reply in enumerate(replies):
            assert await manager.step(OWNER, "s", step(index, f"go {index}")) == reply
        shown = await state(manager)
        assert (shown.step_index, shown.observation.text) == (7, "go 6")


async def test_what_the_other_did_is_seen_at_once(control: Control, pair: Pair) -> None:
    one, other = pair
    await one.create(OWNER, new())
    await state(other)
    await take(one, 0, "a")
    await take(one, 1, "end")
    assert (await state(other)).terminated is True
    with pytest.raises(EpisodeEnded):
        await other.step(OWNER, "s", step(2))
    assert (await other.expert(OWNER, "s")).action is None


async def test_a_gap_is_told_by_what_all_have_done(control: Control, pair: Pair) -> None:
    one, other = pair
    await one.create(OWNER, new())
    await state(other)
    await take(one, 0)
    await take(one, 1)
    with pytest.raises(StepIndexMismatch) as caught:
        await other.step(OWNER, "s", step(3))
    assert caught.value.members["expected"] == 2
    assert (await take(other, 2)).step_index == 2


async def test_a_deleted_session_is_gone_everywhere_and_its_environments_too(
    control: Control, pair: Pair
) -> None:
    one, other = pair
    await one.create(OWNER, new("read"))
    await one.create(OWNER, new("stepped"))
    for session_id in ("read", "stepped"):
        await state(other, session_id)
        await one.delete(OWNER, session_id)
    with pytest.raises(UnknownSession, match="'read'"):
        await other.get(OWNER, "read")
    with pytest.raises(UnknownSession, match="'stepped'"):
        await other.step(OWNER, "stepped", step(0))
    assert (control.num_closed, other.num_sessions, one.num_sessions) == (4, 0, 0)
    await other.create(OWNER, new("read", seed=1))


async def test_a_new_session_under_an_id_that_was_free_is_told_from_the_old_one(
    control: Control, pair: Pair
) -> None:
    one, other = pair
    await one.create(OWNER, new())
    for index in range(3):
        await take(one, index, f"old {index}")
    await state(other)
    await one.delete(OWNER, "s")
    await one.create(OWNER, new(seed=1))
    reply = await take(other, 0, "new")
    assert (reply.seed, reply.observation.text) == (1, "new")
    assert await take(one, 0, "new") == reply


async def test_the_same_creation_at_both_begins_one_session(control: Control, pair: Pair) -> None:
    one, other = pair
    for index in range(5):
        request = new(f"s{index}")
        attempts = await side_by_side(
            partial(one.create, OWNER, request),
            partial(other.create, OWNER, request),
        )
        assert await attempts[0].result() == await attempts[1].result()


async def test_two_creations_of_one_id_at_both_make_the_one_that_was_first(
    control: Control, pair: Pair
) -> None:
    one, other = pair
    attempts = await side_by_side(
        lambda: one.create(OWNER, new(seed=1)), lambda: other.create(OWNER, new(seed=2))
    )
    assert sorted(type(attempt.error).__name__ for attempt in attempts) == [
        "NoneType",
        "SessionExists",
    ]
    seed = 1 if attempts[0].error is None else 2
    assert {(await state(manager)).seed for manager in pair} == {seed}


async def test_the_same_step_at_both_is_taken_once_and_answered_with_the_same_bytes(
    control: Control, pair: Pair
) -> None:
    one, other = pair
    await one.create(OWNER, new(env_id=LIGHT))
    for index in range(8):
        request = step(index, f"go {index}")
        attempts = await side_by_side(
            partial(one.step, OWNER, "s", request),
            partial(other.step, OWNER, "s", request),
        )
        assert await attempts[0].result() == await attempts[1].result()
    assert {(await state(manager)).step_index for manager in pair} == {8}


async def test_two_actions_at_both_are_one_step_and_one_conflict(
    control: Control, pair: Pair
) -> None:
    one, other = pair
    await one.create(OWNER, new(env_id=LIGHT))
    taken = []
    for index in range(8):
        attempts = await side_by_side(
            partial(one.step, OWNER, "s", step(index, "one")),
            partial(other.step, OWNER, "s", step(index, "other")),
        )
        kinds = [type(attempt.error) for attempt in attempts]
        assert sorted(kinds, key=str) == sorted([type(None), StepConflict], key=str)
        taken.append("one" if attempts[0].error is None else "other")
    journalled = await one.journal.load(f"{OWNER}:s")
    assert journalled is not None
    assert [row.action.decode() for row in journalled.steps] == [f'"{name}"' for name in taken]
    assert (await state(one)).trace_key == (await state(other)).trace_key


async def test_a_failure_at_one_is_the_failure_at_the_other(control: Control, pair: Pair) -> None:
    one, other = pair
    await one.create(OWNER, new())
    await state(other)
    problems = []
    for manager in (one, other, one):
        with pytest.raises(EnvError) as caught:
            await manager.step(OWNER, "s", step(0, "raise"))
        problems.append(caught.value.to_problem())
    assert problems[0] == problems[1] == problems[2]
    assert control.acts.count("raise") <= 2
    assert not any([(await state(manager)).trainable for manager in pair])


async def test_a_fork_at_the_other_shares_what_this_one_did(control: Control, pair: Pair) -> None:
    one, other = pair
    await one.create(OWNER, new(env_id=SAVING))
    await state(other)
    taken = await take(one, 0, "a")
    body = await fork_session(other, OWNER, "s", ForkRequest(count=2, fork_id="f"))
    reply = ForkReply.model_validate_json(body)
    assert (reply.at_step, reply.trace_key) == (1, taken.trace_key)
    assert (await take(one, 1, "b", "f.1")).step_index == 1


async def test_an_id_as_long_as_it_may_be_is_kept_whole(control: Control, pair: Pair) -> None:
    one, other = pair
    owner, session_id = "o" * 64, "s" * 128
    first = await one.create(owner, new(session_id))
    assert await other.create(owner, new(session_id)) == first


async def test_one_owners_session_is_nobody_elses_also_at_the_other(
    control: Control, pair: Pair
) -> None:
    one, other = pair
    await one.create("alice", new())
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: other.get("bob", "s"),
        lambda: other.step("bob", "s", step(0)),
        lambda: other.renew("bob", "s", is_revival=True),
    ]
    for call in calls:
        with pytest.raises(UnknownSession):
            await call()
    assert b'"seed":9' in await other.create("bob", new(seed=9))
    assert b'"seed":0' in await other.get("alice", "s")
