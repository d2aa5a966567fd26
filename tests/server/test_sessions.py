from __future__ import annotations

import gc
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

from steppo_env.errors import (
    CapacityExceeded,
    DeadlineExceeded,
    EnvError,
    EpisodeEnded,
    InvalidInput,
    SessionExists,
    StepConflict,
    UnknownSession,
    UnknownTask,
)
from steppo_env.wire import CreateSession, SessionReply, StepReply
from steppo_server import sessions as sessions_module
from steppo_server.engines import threads as threads_module
from tests.server.driving import LIGHT, OWNER, STUB, Attempt, Clock, new, state, step, take, turns

if TYPE_CHECKING:
    from tests.server.conftest import Control, Managers

pytestmark = pytest.mark.anyio

NUM_ABANDONED = int(os.environ.get("STEPPO_TEST_ABANDONED", "2000"))
"""Sessions of the memory test; 20,000 take half a minute."""
AT_ONCE = 250
SLACK_BYTES = 10_000_000


# Creation.


async def test_two_requests_for_one_session_at_the_same_time_begin_one_episode(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    first = Attempt(lambda: manager.create(OWNER, new(task_id="slow")))
    second = Attempt(lambda: manager.create(OWNER, new(task_id="slow")))
    async with anyio.create_task_group() as group:
        group.start_soon(first.run)
        group.start_soon(second.run)
        await control.entered("begin")
        control.open("begin")
    assert await first.result() == await second.result()
    assert control.num_begun == 1
    assert manager.num_sessions == 1


async def test_another_request_for_an_id_in_use_is_refused_even_while_it_is_being_made(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    first = Attempt(lambda: manager.create(OWNER, new(task_id="slow")))
    async with anyio.create_task_group() as group:
        group.start_soon(first.run)
        await control.entered("begin")
        with pytest.raises(SessionExists):
            await manager.create(OWNER, new(seed=1))
        control.open("begin")
    assert (await state(manager)).task_id == "slow"


async def test_a_retry_that_waited_for_a_failed_creation_gets_the_real_reason(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    attempts = [Attempt(lambda: manager.create(OWNER, new(task_id="broken"))) for _ in range(3)]
    async with anyio.create_task_group() as group:
        for attempt in attempts:
            group.start_soon(attempt.run)
    assert [type(attempt.error) for attempt in attempts] == [EnvError] * 3
    assert manager.num_sessions == 0


async def test_a_failed_creation_leaves_no_session_and_closes_its_environment(
    control: Control, managers: Managers
) -> None:
    manager = managers(max_sessions=1)
    with pytest.raises(UnknownTask):
        await manager.create(OWNER, new(task_id="none"))
    assert manager.num_sessions == 0
    await manager.create(OWNER, new())


async def test_the_first_reply_tells_the_lease_from_when_the_episode_had_begun(
    control: Control, clock: Clock, managers: Managers
) -> None:
    manager = managers()
    attempt = Attempt(lambda: manager.create(OWNER, new(task_id="slow", lease_s=10)))
    async with anyio.create_task_group() as group:
        group.start_soon(attempt.run)
        await control.entered("begin")
        clock.now += 100
        control.open("begin")
    reply = SessionReply.model_validate_json(str(await attempt.result(), "ascii"))  # type: ignore[call-overload]
    assert reply.lease_expires_at == 1e9 + 1000 + 100 + 10


async def test_a_session_that_is_being_made_can_be_deleted_and_is_then_gone(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    made = Attempt(lambda: manager.create(OWNER, new(task_id="slow")))
    deleted = Attempt(lambda: manager.delete(OWNER, "s"))
    async with anyio.create_task_group() as group:
        group.start_soon(made.run)
        await control.entered("begin")
        group.start_soon(deleted.run)
        await turns()
        control.open("begin")
    assert made.error is None
    assert deleted.error is None
    assert (manager.num_sessions, control.num_closed) == (0, 1)


async def test_a_cancelled_creation_goes_on_so_that_its_retry_gets_the_session(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    async with anyio.create_task_group() as group:
        group.start_soon(manager.create, OWNER, new(task_id="slow"))
        await control.entered("begin")
        group.cancel_scope.cancel()
        control.open("begin")
    await manager.create(OWNER, new(task_id="slow"))
    assert control.num_begun == 1


async def test_options_with_numbers_that_json_does_not_have_are_invalid_input(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    body = b'{"env_id":"test/Stub-v0","task_id":"train-0","options":{"malformed_penalty":NaN}}'
    with pytest.raises(InvalidInput, match="finite"):
        await manager.create(OWNER, CreateSession.model_validate_json(body))


# Capacity.


async def test_a_full_server_refuses_and_hands_out_nobody_elses_session(
    control: Control, managers: Managers
) -> None:
    manager = managers(max_sessions=2)
    await manager.create(OWNER, new("a"))
    await manager.create(OWNER, new("b"))
    with pytest.raises(CapacityExceeded) as caught:
        await manager.create(OWNER, new(None))
    assert caught.value.members["retry_after_s"] == 5
    assert await manager.create(OWNER, new("a"))  # a retry needs no new place
    await manager.delete(OWNER, "a")
    await manager.create(OWNER, new("c"))
    assert manager.num_sessions == 2


async def test_a_session_that_is_being_made_takes_its_place_already(
    control: Control, managers: Managers
) -> None:
    manager = managers(max_sessions=1)
    async with anyio.create_task_group() as group:
        group.start_soon(manager.create, OWNER, new(task_id="slow"))
        await control.entered("begin")
        with pytest.raises(CapacityExceeded):
            await manager.create(OWNER, new("other"))
        control.open("begin")


# Steps.


async def test_concurrent_identical_steps_apply_once_and_get_the_same_bytes(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new())
    attempts = [Attempt(lambda: manager.step(OWNER, "s", step(0, "wait x"))) for _ in range(5)]
    async with anyio.create_task_group() as group:
        for attempt in attempts:
            group.start_soon(attempt.run)
        await control.entered("x")
        control.open("x")
    assert len({await attempt.result() for attempt in attempts}) == 1
    assert control.acts == ["wait x"]


@pytest.mark.parametrize("env_id", [STUB, LIGHT])
async def test_a_replayed_step_gives_the_same_bytes_at_every_index(
    control: Control, env_id: str, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new(env_id=env_id))
    requests = [step(index, f"go {index}") for index in range(4)]
    replies = [await manager.step(OWNER, "s", request) for request in requests]
    again = [await manager.step(OWNER, "s", request) for request in requests]
    assert again == replies
    assert [StepReply.model_validate_json(reply).step_index for reply in replies] == [0, 1, 2, 3]
    # Made anew beside the episode, which goes on as if nothing had been.
    beside = ["go 0", "go 0", "go 1", "go 0", "go 1", "go 2"]
    assert control.acts == ["go 0", "go 1", "go 2", "go 3", *beside]
    assert (await take(manager, 4)).step_index == 4
    assert (manager.num_sessions, control.num_closed) == (1, 3)


async def test_a_session_keeps_no_reply_but_the_latest(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new(options={"rendering": "accumulated"}))
    requests = [step(index, "go" * 2500) for index in range(20)]
    replies = [await manager.step(OWNER, "s", request) for request in requests]
    session = manager._table._sessions[f"{OWNER}:s"]
    assert session.first_reply is None
    assert session.last_reply == replies[-1]


async def test_the_creation_again_gets_the_same_bytes_also_after_steps(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    first = await manager.create(OWNER, new(lease_s=10))
    assert await manager.create(OWNER, new(lease_s=10)) == first
    for index in range(2):
        await manager.step(OWNER, "s", step(index))
    assert await manager.create(OWNER, new(lease_s=20)) == first
    assert (await take(manager, 2)).step_index == 2


async def test_a_step_with_another_action_conflicts_also_after_it_failed(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new())
    with pytest.raises(EnvError):
        await manager.step(OWNER, "s", step(0, "raise"))
    with pytest.raises(StepConflict):
        await manager.step(OWNER, "s", step(0, "go"))


async def test_a_failed_step_fails_again_the_same_way_and_grows_no_traceback(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new())
    problems = []
    for _ in range(3):
        with pytest.raises(EnvError, match="act broke") as caught:
            await manager.step(OWNER, "s", step(0, "raise"))
        problems.append(caught.value.to_problem())
    assert problems[0] == problems[1] == problems[2]
    assert problems[0]["trainable"] is False
    session = manager._table._sessions[f"{OWNER}:s"]
    for kept in (session.last_reply, session.failure):
        assert isinstance(kept, EnvError)
        assert kept.__traceback__ is None
    with pytest.raises(EpisodeEnded) as ended:
        await manager.step(OWNER, "s", step(1))
    assert ended.value.members["trainable"] is False
    assert (await state(manager)).trainable is False
    assert control.acts == ["raise"]


async def test_a_reply_that_is_no_json_is_the_environments_failure(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new())
    for _ in range(2):
        with pytest.raises(EnvError):
            await manager.step(OWNER, "s", step(0, "object"))
    assert (await state(manager)).trainable is False


async def test_a_cancelled_step_goes_on_and_its_retry_gets_the_reply(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new())
    async with anyio.create_task_group() as group:
        group.start_soon(manager.step, OWNER, "s", step(0, "wait x"))
        await control.entered("x")
        group.cancel_scope.cancel()
        control.open("x")
    reply = StepReply.model_validate_json(await manager.step(OWNER, "s", step(0, "wait x")))
    assert (reply.step_index, reply.reward) == (0, 1.0)
    assert control.acts == ["wait x"]


async def test_a_step_that_is_cancelled_while_it_waits_its_turn_harms_no_episode(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    for session_id in ("busy", "s"):
        await manager.create(OWNER, new(session_id))
    async with anyio.create_task_group() as group:
        group.start_soon(manager.step, OWNER, "busy", step(0, "wait x"))
        await control.entered("x")
        group.start_soon(manager.step, OWNER, "s", step(0))
        await turns()
        group.cancel_scope.cancel()
        control.open("x")
    reply = StepReply.model_validate_json(await manager.step(OWNER, "s", step(0)))
    assert (reply.step_index, reply.trainable) == (0, True)
    assert control.acts == ["wait x", "go"]


async def test_a_step_behind_a_deleted_session_is_told_so_and_touches_nothing(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new())
    taken = Attempt(lambda: manager.step(OWNER, "s", step(0, "wait x")))
    deleted = Attempt(lambda: manager.delete(OWNER, "s"))
    late = Attempt(lambda: manager.step(OWNER, "s", step(1)))
    again = Attempt(lambda: manager.delete(OWNER, "s"))
    async with anyio.create_task_group() as group:
        group.start_soon(taken.run)
        await control.entered("x")
        for attempt in (deleted, late, again):
            group.start_soon(attempt.run)
            await turns()
        control.open("x")
    assert taken.error is None
    assert deleted.error is None
    assert isinstance(late.error, UnknownSession)
    assert isinstance(again.error, UnknownSession)
    assert control.acts == ["wait x"]
    assert control.num_closed == 1


async def test_calls_that_wait_for_one_id_are_served_in_the_order_they_came(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new())
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: manager.step(OWNER, "s", step(0, "wait x")),
        lambda: manager.delete(OWNER, "s"),
        lambda: manager.create(OWNER, new(seed=1)),
        lambda: manager.step(OWNER, "s", step(0, "new")),
        lambda: manager.delete(OWNER, "s"),
        lambda: manager.get(OWNER, "s"),
    ]
    attempts = [Attempt(call) for call in calls]
    async with anyio.create_task_group() as group:
        for attempt in attempts[:2]:
            group.start_soon(attempt.run)
            await turns()
        await control.entered("x")
        control.open("x")
        await attempts[1].result()
        for attempt in attempts[2:]:
            group.start_soon(attempt.run)
            await turns()
    errors = [type(attempt.error) for attempt in attempts]
    assert errors == [type(None)] * 5 + [UnknownSession]
    assert control.acts == ["wait x", "new"]
    assert (control.num_begun, control.num_closed, manager.num_sessions) == (2, 2, 0)


async def test_an_action_of_more_than_a_million_characters_is_invalid_input(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new())
    with pytest.raises(InvalidInput, match="1000000 characters"):
        await manager.step(OWNER, "s", step(0, "x" * 1_000_001))
    await manager.step(OWNER, "s", step(0, "x" * 1_000_000))
    with pytest.raises(InvalidInput, match="1000000 characters"):
        await manager.step(OWNER, "s", step(1, {"content": "x" * 1_000_000}))


# Deadlines.


async def test_a_step_over_its_deadline_fails_its_own_session_and_costs_others_a_rebuild(
    control: Control, managers: Managers
) -> None:
    manager = managers(step_deadline_s=0.05)
    for session_id in ("hung", "same"):
        await manager.create(OWNER, new(session_id))
    await manager.create(OWNER, new("other", env_id=LIGHT))
    before = await take(manager, 0, "first", "same")
    worker = manager._table._sessions[f"{OWNER}:same"].worker
    assert worker is not None
    generation = worker.generation
    with pytest.raises(DeadlineExceeded) as caught:
        await manager.step(OWNER, "hung", step(0, "wait x"))
    assert caught.value.members == {"deadline_s": 0.05, "trainable": False}
    assert worker.generation == generation + 1
    assert (await state(manager, "same")).trace_key == before.trace_key
    assert (await take(manager, 1, "second", "same")).trainable is True
    await take(manager, 0, "elsewhere", "other")
    assert (await state(manager, "hung")).trainable is False
    with pytest.raises(DeadlineExceeded):
        await manager.step(OWNER, "hung", step(0, "wait x"))
    with pytest.raises(EpisodeEnded):
        await manager.step(OWNER, "hung", step(1))
    # The hung step is not tried again, whatever is rebuilt.
    assert control.acts == ["first", "wait x", "first", "second", "elsewhere"]


async def test_steps_that_wait_behind_a_hung_one_are_taken_when_it_is_given_up(
    control: Control, managers: Managers
) -> None:
    manager = managers(step_deadline_s=0.1)
    names = ["hung", *"abcdef"]
    for session_id in names:
        await manager.create(OWNER, new(session_id))
    hung = Attempt(lambda: manager.step(OWNER, "hung", step(0, "wait x")))
    others = [Attempt(lambda name=name: manager.step(OWNER, name, step(0))) for name in names[1:]]  # type: ignore[misc]
    async with anyio.create_task_group() as group:
        group.start_soon(hung.run)
        await control.entered("x")
        for attempt in others:
            group.start_soon(attempt.run)
    assert isinstance(hung.error, DeadlineExceeded)
    assert [attempt.error for attempt in others] == [None] * 6


async def test_a_step_whose_turn_does_not_come_is_not_taken_and_can_be_sent_again(
    control: Control, managers: Managers
) -> None:
    manager = managers(queue_deadline_s=0.05)
    await manager.create(OWNER, new("busy"))
    await manager.create(OWNER, new("s"))
    async with anyio.create_task_group() as group:
        group.start_soon(manager.step, OWNER, "busy", step(0, "wait x"))
        await control.entered("x")
        with pytest.raises(CapacityExceeded):
            await manager.step(OWNER, "s", step(0))
        control.open("x")
    reply = StepReply.model_validate_json(await manager.step(OWNER, "s", step(0)))
    assert reply.step_index == 0
    assert control.acts == ["wait x", "go"]


async def test_what_a_hung_environment_does_later_does_not_show(
    control: Control, managers: Managers
) -> None:
    threads = {*threading.enumerate()}
    manager = managers(step_deadline_s=0.05)
    await manager.create(OWNER, new())
    hosts = set(threading.enumerate()) - threads
    with pytest.raises(DeadlineExceeded):
        await manager.step(OWNER, "s", step(0, "wait x"))
    before = await state(manager)
    control.open("x")
    for thread in hosts & {*control.threads}:  # the abandoned one ends with its step
        await anyio.to_thread.run_sync(thread.join, 20)
        assert not thread.is_alive()
    after = await state(manager)
    assert after.observation == before.observation
    assert (after.step_index, after.trace_key) == (1, before.trace_key)


async def test_an_expert_that_raises_is_an_env_error_and_the_episode_goes_on(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    await manager.create(OWNER, new())
    await manager.step(OWNER, "s", step(0, "no advice"))
    with pytest.raises(EnvError, match="expert broke"):
        await manager.expert(OWNER, "s")
    await manager.step(OWNER, "s", step(1))
    assert (await manager.expert(OWNER, "s")).action == "end"


async def test_an_environment_that_fails_to_close_does_not_keep_others_open(
    control: Control, clock: Clock, managers: Managers
) -> None:
    manager = managers()
    for session_id in ("a", "b"):
        await manager.create(OWNER, new(session_id, lease_s=1))
    await manager.step(OWNER, "a", step(0, "no close"))
    clock.now += 2
    assert await manager.sweep() == 2
    assert control.num_closed == 2


async def test_closing_the_manager_closes_every_environment_and_waits_for_no_hung_one(
    control: Control, monkeypatch: pytest.MonkeyPatch, managers: Managers
) -> None:
    for module in (sessions_module, threads_module):
        monkeypatch.setattr(module, "CLOSE_DEADLINE_S", 0.05)
    manager = managers()
    for session_id in ("a", "b"):
        await manager.create(OWNER, new(session_id, env_id=LIGHT))
    await manager.create(OWNER, new("hung"))
    hung = Attempt(lambda: manager.step(OWNER, "hung", step(0, "wait x")))
    async with anyio.create_task_group() as group:
        group.start_soon(hung.run)
        await control.entered("x")
        with anyio.fail_after(10):
            await manager.close()
        assert control.num_closed == 2
        control.open("x")
    assert manager.num_sessions == 0


# Where code runs, and what it costs.


async def test_episodes_of_one_blocking_environment_never_run_at_the_same_time(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    async with anyio.create_task_group() as group:
        for index in range(8):
            group.start_soon(manager.create, OWNER, new(f"s{index}"))
    async with anyio.create_task_group() as group:
        for index in range(8):
            group.start_soon(manager.step, OWNER, f"s{index}", step(0))
    assert len(control.acts) == 8
    assert control.most_at_once == 1


async def test_only_environments_that_cannot_block_run_on_the_event_loops_thread(
    control: Control, managers: Managers
) -> None:
    manager = managers()
    for env_id in (LIGHT, STUB):
        session_id = env_id.replace("/", ":")
        await manager.create(OWNER, new(session_id, env_id=env_id))
        await manager.step(OWNER, session_id, step(0))
    here = threading.current_thread()
    assert [thread is here for thread in control.threads] == [True, False]


async def test_thousands_of_abandoned_sessions_give_their_memory_back(
    managers: Managers, tmp_path: Path
) -> None:
    manager = managers(journal=f"sqlite:///{tmp_path}/journal.db", max_sessions=NUM_ABANDONED)
    request = new(None, env_id="steppo/KeyDoor-v0", task_id="train/0", lease_s=1e-6)

    async def begin(count: int) -> None:
        for _ in range(count // AT_ONCE):
            async with anyio.create_task_group() as group:
                for _ in range(AT_ONCE):
                    group.start_soon(manager.create, OWNER, request)

    await begin(AT_ONCE)
    await manager.sweep()
    num_objects, begun_with = held_now()
    await begin(NUM_ABANDONED)
    _, held = held_now()
    assert manager.num_sessions == NUM_ABANDONED
    assert held - begun_with < NUM_ABANDONED * 20_000 + SLACK_BYTES
    assert await manager.sweep() == NUM_ABANDONED
    assert manager.num_sessions == 0
    assert [worker.num_sessions for worker in manager.pool._workers()] == [0, 0]
    assert held_now()[0] < num_objects + 1_000
    # The next ones live in what the former gave back.
    await begin(NUM_ABANDONED // 4)
    await manager.sweep()
    assert held_now()[1] < held + SLACK_BYTES


def held_now() -> tuple[int, int]:
    """Return how many objects the collector knows, and the bytes of memory that this process has."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(gc.get_objects()), pages * os.sysconf("SC_PAGE_SIZE")
