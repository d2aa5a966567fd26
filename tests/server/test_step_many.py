"""Many steps at once: what each is answered, whatever the others in the batch come to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from steppo_env.errors import (
    EnvError,
    EpisodeEnded,
    InvalidInput,
    StepConflict,
    StepIndexMismatch,
    SteppoError,
    StoreError,
    UnknownSession,
)
from steppo_env.wire import StepItem, StepReply
from steppo_server.sessions import SessionManager
from steppo_server.settings import ServerSettings
from steppo_server.table import SessionTable
from tests.server.driving import LIGHT, OWNER, STUB, Attempt, Clock, new, state, step, take, turns

if TYPE_CHECKING:
    from tests.server.conftest import Control, Managers

pytestmark = pytest.mark.anyio


def item(session_id: str, step_index: int = 0, action: Any = "go") -> StepItem:
    return StepItem(session_id=session_id, step_index=step_index, action=action)


async def begin(manager: SessionManager, *names: str, env_id: str = LIGHT) -> None:
    for name in names:
        await manager.create(OWNER, new(name, env_id=env_id))


async def step_many(manager: SessionManager, *items: StepItem) -> Sequence[bytes | Exception]:
    return await manager.step_many(OWNER, items)


def text_of(answer: bytes | Exception) -> str:
    assert isinstance(answer, bytes), answer
    return StepReply.model_validate_json(answer).observation.text


def _told(error: Exception) -> object:
    return error.to_problem() if isinstance(error, SteppoError) else str(error)


async def test_a_mixed_batch_answers_each_item_as_one_that_waits_its_turn(
    control: Control, managers: Managers, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same batch on two servers, of which one takes no step at once."""

    async def hold_none(key: str) -> None:
        return None

    items = [
        item("a", 0, "first"),
        item("b", 0, "raise"),
        item("nobody"),
        item("blocking", 0, "on a thread"),
        item("a", 1, "second"),
        item("c", 3),
        item("d", 0, {"role": "assistant", "content": "as a message"}),
        item("e", 0, "x" * 9_000),
        item("f", 0, "x" * 1_000_001),
        item("g", 0, "end"),
        item("h", 0, "before"),
        item("i", 0, "other than before"),
        item("j", 1),
        item("k", 0, {"n": float("nan")}),
        item("a", 0, "first"),
    ]
    answered: list[list[object]] = []
    for is_at_once in (True, False):
        manager = managers()
        await begin(manager, *"abcdefghijk")
        await begin(manager, "blocking", env_id=STUB)
        await take(manager, 0, "before", "h")
        await take(manager, 0, "before", "i")
        await take(manager, 0, "end", "j")
        if not is_at_once:
            monkeypatch.setattr(manager._table, "hold_now", hold_none)
        answers = await manager.step_many(OWNER, items)
        answered.append([it if isinstance(it, bytes) else (type(it), _told(it)) for it in answers])
        for name, shown in (("a", 2), ("b", 1), ("c", 0), ("g", 1), ("i", 1)):
            assert (await state(manager, name)).step_index == shown
    assert answered[0] == answered[1]
    kinds = [it[0] if isinstance(it, tuple) else bytes for it in answered[0]]
    expected = [bytes, EnvError, UnknownSession, bytes, bytes, StepIndexMismatch, bytes, bytes]
    expected += [InvalidInput, bytes, bytes, StepConflict, EpisodeEnded, InvalidInput, bytes]
    assert kinds == expected


async def test_each_step_of_a_batch_is_taken_once_and_a_repeated_batch_gets_the_same_bytes(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    names = [f"s{number}" for number in range(20)]
    await begin(manager, *names)
    batch = [item(name, 0, f"go {name}") for name in names]
    first = await step_many(manager, *batch)
    assert [text_of(answer) for answer in first] == [f"go {name}" for name in names]
    assert await step_many(manager, *batch) == first
    assert len(control.acts) == 20


async def test_the_same_batch_twice_at_the_same_time_takes_each_step_once(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await begin(manager, "a", "b", "c")
    batch = [item("a"), item("b"), item("c")]
    attempts = [Attempt(lambda: manager.step_many(OWNER, batch)) for _ in range(3)]
    attempts.append(Attempt(lambda: manager.step(OWNER, "b", step(0))))
    async with anyio.create_task_group() as group:
        for attempt in attempts:
            group.start_soon(attempt.run)
    first, *others = [await attempt.result() for attempt in attempts]
    assert isinstance(first, list)
    assert others == [first, first, first[1]]
    assert len(control.acts) == 3


async def test_a_cancelled_batch_is_recorded_and_its_retry_gets_the_replies(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await begin(manager, "a", "b")
    async with anyio.create_task_group() as group:
        group.start_soon(manager.step_many, OWNER, [item("a"), item("b")])
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert len(control.acts) == 2
    answers = await step_many(manager, item("a"), item("b"))
    assert [text_of(answer) for answer in answers] == ["go", "go"]
    assert (len(control.acts), control.num_begun) == (2, 2)  # nothing was rebuilt


async def test_a_blocking_step_keeps_no_other_of_its_batch_waiting(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await begin(manager, "light")
    await begin(manager, "blocking", env_id=STUB)
    batch = [item("blocking", 0, "wait gate"), item("light")]
    together = Attempt(lambda: manager.step_many(OWNER, batch))
    async with anyio.create_task_group() as group:
        group.start_soon(together.run)
        await control.entered("gate")
        assert (await take(manager, 1, "on", "light")).observation.text == "on"
        control.open("gate")
    found = await together.result()
    assert isinstance(found, list)
    assert [text_of(answer) for answer in found] == ["wait gate", "go"]


async def test_a_batch_waits_its_turn_behind_those_who_came_before(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await begin(manager, "a", "b")
    order: list[str] = []

    async def ask(index: int) -> None:
        await manager.step(OWNER, "a", step(index, f"single {index}"))
        order.append(f"single {index}")

    async def batch() -> None:
        await step_many(manager, item("a", 3, "batch"), item("b", 0, "beside"))
        order.append("batch")

    async with anyio.create_task_group() as group:
        async with manager.using(OWNER, "a"):
            for index in range(3):
                group.start_soon(ask, index)
            await turns()
        # Nobody holds the lock now, and three are about to get it, one after another.
        group.start_soon(batch)
    assert order == ["single 0", "single 1", "single 2", "batch"]


async def test_a_session_that_others_wait_for_is_not_free_although_nobody_has_it() -> None:
    table = SessionTable(ServerSettings())
    session = await table.hold("me:a")
    session.request = new("a")
    async with anyio.create_task_group() as group:
        group.start_soon(table.hold, "me:a")
        await turns()
        table.let_go(session)
        assert await table.hold_now("me:a") is None
    table.let_go(session)
    assert await table.hold_now("me:a") is session


async def test_a_journal_that_fails_fails_each_step_and_the_retry_takes_them(
    control: Control, managers: Managers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = managers(journal=f"sqlite:///{tmp_path}/journal.db")
    await begin(manager, "a", "b")

    async def fail(rows: Sequence[object]) -> Sequence[Exception]:
        return [StoreError("the disk is full") for _ in rows]

    with monkeypatch.context() as patched:
        patched.setattr(manager.journal, "add_steps", fail)
        answers = await step_many(manager, item("a"), item("b"))
    assert [type(answer) for answer in answers] == [StoreError, StoreError]
    assert manager.num_sessions == 0
    answers = await step_many(manager, item("a"), item("b"))
    assert [text_of(answer) for answer in answers] == ["go", "go"]
    assert (await state(manager, "a")).step_index == 1


async def test_two_servers_that_get_the_same_batch_agree_on_every_reply(
    control: Control, managers: Managers, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    one, other = managers(journal=url), managers(journal=url)
    names = [f"s{number}" for number in range(10)]
    await begin(one, *names)
    await step_many(other, *[item(name) for name in names])  # it has them in memory now
    await step_many(one, *[item(name) for name in names])
    for index in range(1, 6):
        batch = [item(name, index, f"go {index}") for name in names]
        attempts = [
            Attempt(partial(one.step_many, OWNER, batch)),
            Attempt(partial(other.step_many, OWNER, batch[::-1])),
        ]
        async with anyio.create_task_group() as group:
            for attempt in attempts:
                group.start_soon(attempt.run)
        first, second = [await attempt.result() for attempt in attempts]
        assert isinstance(second, list)
        assert first == second[::-1]
    for name in names:
        found = await one.journal.load(f"{OWNER}:{name}")
        assert found is not None
        assert len(found.steps) == 6


async def test_a_session_that_another_server_deleted_is_unknown_and_spares_the_others(
    control: Control, managers: Managers, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    one, other = managers(journal=url), managers(journal=url)
    await begin(one, "a", "b")
    await other.delete(OWNER, "a")
    gone, taken = await step_many(one, item("a"), item("b"))
    assert isinstance(gone, UnknownSession)
    assert text_of(taken) == "go"
    assert one.num_sessions == 1
