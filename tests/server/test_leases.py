from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from steppo_env.errors import CapacityExceeded, SessionExpired, StoreError, UnknownSession
from steppo_env.wire import StepReply
from steppo_server.sessions import SessionManager
from tests.server.driving import OWNER, Attempt, Clock, new, state, step, take

if TYPE_CHECKING:
    from tests.server.conftest import Control, Managers

pytestmark = pytest.mark.anyio


async def test_an_expired_session_is_closed_and_answers_with_its_last_step_index(
    control: Control, clock: Clock, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new(lease_s=10))
    await manager.step(OWNER, "s", step(0))
    clock.now += 11
    assert await manager.sweep() == 1
    assert (manager.num_sessions, control.num_closed) == (0, 1)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: manager.step(OWNER, "s", step(1)),
        lambda: manager.get(OWNER, "s"),
        lambda: manager.expert(OWNER, "s"),
        lambda: manager.delete(OWNER, "s"),
    ]
    for call in calls:
        with pytest.raises(SessionExpired) as caught:
            await call()
        assert caught.value.members["last_step_index"] == 0
        assert caught.value.members["trainable"] is False


@pytest.mark.parametrize("use", ["create", "step", "get", "expert"])
async def test_every_use_renews_the_lease(
    control: Control, clock: Clock, use: str, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new(lease_s=10))
    uses: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: manager.create(OWNER, new(lease_s=10)),
        "step": lambda: manager.step(OWNER, "s", step(0)),
        "get": lambda: manager.get(OWNER, "s"),
        "expert": lambda: manager.expert(OWNER, "s"),
    }
    clock.now += 9
    await uses[use]()
    clock.now += 9
    assert await manager.sweep() == 0
    clock.now += 2
    assert await manager.sweep() == 1


async def test_a_session_in_the_middle_of_a_long_step_is_never_reaped(
    control: Control, clock: Clock, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new(lease_s=10))
    taken = Attempt(lambda: manager.step(OWNER, "s", step(0, "wait x")))
    async with anyio.create_task_group() as group:
        group.start_soon(taken.run)
        await control.entered("x")
        clock.now += 1000
        assert await manager.sweep() == 0
        control.open("x")
    reply = await taken.result()
    assert isinstance(reply, bytes)
    # Its lease starts anew when the step is answered.
    assert StepReply.model_validate_json(reply).lease_expires_at == 1e9 + 2000 + 10
    assert await manager.sweep() == 0
    assert control.num_closed == 0


async def test_an_expired_session_is_revived_and_goes_on_where_it_was(
    control: Control, clock: Clock, managers: Managers
) -> None:
    manager = managers()
    first = await manager.create(OWNER, new(lease_s=10))
    taken = await manager.step(OWNER, "s", step(0, "a"))
    clock.now += 11
    await manager.sweep()
    until = await manager.renew(OWNER, "s", is_revival=True)
    assert until == clock.time() + 10
    assert await manager.step(OWNER, "s", step(0, "a")) == taken
    assert (await take(manager, 1, "b")).step_index == 1
    assert await manager.create(OWNER, new(lease_s=10)) == first
    assert (control.num_begun, manager.num_sessions) == (3, 1)  # one of them for the first reply
    assert control.acts == ["a", "a", "b"]


async def test_a_lease_that_ran_out_is_renewed_only_when_that_is_meant(
    control: Control, clock: Clock, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new(lease_s=10))
    clock.now += 11
    await manager.sweep()
    with pytest.raises(SessionExpired) as caught:
        await manager.renew(OWNER, "s", is_revival=False)
    assert caught.value.members["last_step_index"] == -1
    with pytest.raises(UnknownSession):
        await manager.renew(OWNER, "never", is_revival=True)
    assert manager.num_sessions == 0


async def test_renewing_takes_no_place_and_builds_nothing(
    control: Control, clock: Clock, managers: Managers
) -> None:
    manager = managers(max_sessions=1)
    await manager.create(OWNER, new("old", lease_s=10))
    clock.now += 11
    await manager.sweep()
    await manager.create(OWNER, new("live"))
    await manager.renew(OWNER, "old", is_revival=True)
    assert (control.num_begun, manager.num_sessions) == (2, 1)
    with pytest.raises(CapacityExceeded):
        await manager.get(OWNER, "old")
    await manager.delete(OWNER, "live")
    assert (await state(manager, "old")).step_index == 0


async def test_a_heartbeat_keeps_a_session_alive_while_a_model_thinks(
    control: Control, clock: Clock, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new(lease_s=10))
    for _ in range(12):
        clock.now += 9
        assert await manager.renew(OWNER, "s", is_revival=False) == clock.time() + 10
        assert await manager.sweep() == 0
    assert control.num_closed == 0


async def test_the_creation_of_an_expired_session_again_does_not_begin_another(
    control: Control, clock: Clock, managers: Managers
) -> None:
    manager = managers()
    first = await manager.create(OWNER, new(lease_s=1))
    clock.now += 2
    await manager.sweep()
    with pytest.raises(SessionExpired):
        await manager.create(OWNER, new(lease_s=1))
    await manager.renew(OWNER, "s", is_revival=True)
    assert await manager.create(OWNER, new(lease_s=1)) == first


async def test_what_was_purged_is_unknown_and_its_id_is_free(
    control: Control, clock: Clock, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new(lease_s=1))
    clock.now += 2
    await manager.sweep()
    assert await manager.journal.purge(before=clock.time()) == 1
    with pytest.raises(UnknownSession):
        await manager.renew(OWNER, "s", is_revival=True)
    await manager.create(OWNER, new(seed=1))


async def test_a_sweep_whose_journal_fails_frees_the_expired_all_the_same(
    control: Control, clock: Clock, managers: Managers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(leases: Mapping[str, float]) -> None:
        raise StoreError("the disk is full")

    manager = managers()
    await manager.create(OWNER, new("gone", lease_s=1))
    await manager.create(OWNER, new("live", lease_s=10))
    clock.now += 1.5
    await manager.renew(OWNER, "live", is_revival=False)
    with monkeypatch.context() as patch:
        patch.setattr(manager.journal, "renew", broken)
        with pytest.raises(StoreError):
            await manager.sweep()
    assert (manager.num_sessions, control.num_closed) == (1, 1)
    assert (await state(manager, "live")).trainable is True


async def test_a_session_that_is_revived_while_it_is_swept_goes_on(
    control: Control, clock: Clock, managers: Managers, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = managers()
    await manager.create(OWNER, new(lease_s=10))
    await take(manager, 0, "a")
    await manager.renew(OWNER, "s", is_revival=False)
    clock.now += 11
    write = manager.journal.renew

    async def late(leases: Mapping[str, float]) -> None:
        """Let the session be taken up again before the sweep closes what it had."""
        monkeypatch.setattr(manager.journal, "renew", write)
        await manager.renew(OWNER, "s", is_revival=True)
        await take(manager, 1, "b")
        await write(leases)

    session = manager._table._sessions[f"{OWNER}:s"]
    session.journalled_lease -= 1  # there is something to write
    monkeypatch.setattr(manager.journal, "renew", late)
    assert await manager.sweep() == 1
    assert (await take(manager, 2, "c")).step_index == 2
    assert control.acts == ["a", "a", "b", "a", "b", "c"]


# Over a restart.


async def begun(managers: Managers, url: str) -> SessionManager:
    """Return a manager with a session, its lease 10 s, that has just given a sign of life."""
    manager = managers(journal=url)
    await manager.create(OWNER, new(lease_s=10))
    await manager.sweep()
    return manager


async def test_a_time_in_which_no_server_ran_expires_nothing(
    control: Control, clock: Clock, managers: Managers, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    await begun(managers, url)
    clock.now += 10_000
    manager = managers(journal=url)
    assert (await take(manager, 0)).step_index == 0


async def test_a_lease_is_whole_again_when_the_server_is_back_and_then_runs_out(
    control: Control, clock: Clock, managers: Managers, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    await begun(managers, url)
    clock.now += 10_000
    manager = managers(journal=url)
    clock.now += 9
    assert (await state(manager)).step_index == 0
    other = managers(journal=url)
    clock.now += 11
    with pytest.raises(SessionExpired):
        await other.get(OWNER, "s")


async def test_what_had_expired_before_the_server_died_stays_expired(
    control: Control, clock: Clock, managers: Managers, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    before = await begun(managers, url)
    clock.now += 11
    await before.sweep()
    clock.now += 10_000
    manager = managers(journal=url)
    with pytest.raises(SessionExpired):
        await manager.get(OWNER, "s")
    await manager.renew(OWNER, "s", is_revival=True)
    assert (await take(manager, 0)).step_index == 0


async def test_a_heartbeat_outlives_the_server_that_took_it(
    control: Control, clock: Clock, managers: Managers, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    before = await begun(managers, url)
    for _ in range(3):
        clock.now += 9
        await before.renew(OWNER, "s", is_revival=False)
        await before.sweep()
    manager = managers(journal=url)
    assert (await take(manager, 0)).step_index == 0
