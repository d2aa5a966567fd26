from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from steppo_env.catalogue import Catalogue
from steppo_env.errors import (
    CapacityExceeded,
    DeadlineExceeded,
    EnvError,
    EpisodeEnded,
    InvalidInput,
    SessionExists,
    SessionExpired,
    StepConflict,
    SteppoError,
    UnknownSession,
    UnknownTask,
)
from steppo_env.mdp import Action
from steppo_env.wire import (
    ActionModel,
    CreateSession,
    SessionReply,
    StepReply,
    StepRequest,
    read_action,
)
from steppo_server import session as session_module
from steppo_server import sessions as sessions_module
from steppo_server.sessions import SessionManager
from steppo_server.settings import ServerSettings

if TYPE_CHECKING:
    from tests.server.conftest import Control

pytestmark = pytest.mark.anyio

STUB = "test/Stub-v0"
LIGHT = "test/Light-v0"


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1e9 + self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(session_module, "time", clock)
    return clock


def manager_of(**settings: Any) -> SessionManager:
    return SessionManager(Catalogue(), ServerSettings(**settings))


def new(session_id: str | None = "s", **changes: Any) -> CreateSession:
    given = {"env_id": STUB, "task_id": "train-0", "session_id": session_id, **changes}
    return CreateSession.model_validate(given)


def step(step_index: int, action: ActionModel = "go") -> StepRequest:
    return StepRequest(step_index=step_index, action=action)


async def state(manager: SessionManager, session_id: str = "s") -> SessionReply:
    return SessionReply.model_validate_json(await manager.get(session_id))


class Attempt:
    """A call that runs beside the test; its result or its error is kept."""

    def __init__(self, call: Callable[[], Awaitable[object]]) -> None:
        self._call = call
        self._done = anyio.Event()
        self._result: object = None
        self.error: BaseException | None = None

    async def run(self) -> None:
        try:
            self._result = await self._call()
        except SteppoError as error:
            self.error = error
        finally:
            self._done.set()

    async def result(self) -> object:
        with anyio.fail_after(20):
            await self._done.wait()
        if self.error is not None:
            raise self.error
        return self._result


async def turns(count: int = 20) -> None:
    """Give every task that can run the chance to run up to where it waits."""
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


# Creation.


async def test_two_requests_for_one_session_at_the_same_time_begin_one_episode(
    control: Control,
) -> None:
    manager = manager_of()
    first = Attempt(lambda: manager.create(new(task_id="slow")))
    second = Attempt(lambda: manager.create(new(task_id="slow")))
    async with anyio.create_task_group() as group:
        group.start_soon(first.run)
        group.start_soon(second.run)
        await control.entered("begin")
        control.open("begin")
    assert await first.result() == await second.result()
    assert control.num_begun == 1
    assert manager.num_sessions == 1


async def test_another_request_for_an_id_in_use_is_refused_even_while_it_is_being_made(
    control: Control,
) -> None:
    manager = manager_of()
    first = Attempt(lambda: manager.create(new(task_id="slow")))
    async with anyio.create_task_group() as group:
        group.start_soon(first.run)
        await control.entered("begin")
        with pytest.raises(SessionExists):
            await manager.create(new(seed=1))
        control.open("begin")
    assert (await state(manager)).task_id == "slow"


async def test_a_retry_that_waited_for_a_failed_creation_gets_the_real_reason(
    control: Control,
) -> None:
    manager = manager_of()
    attempts = [Attempt(lambda: manager.create(new(task_id="broken"))) for _ in range(3)]
    async with anyio.create_task_group() as group:
        for attempt in attempts:
            group.start_soon(attempt.run)
    assert [type(attempt.error) for attempt in attempts] == [EnvError] * 3
    assert manager.num_sessions == 0


async def test_a_failed_creation_leaves_no_session_and_closes_its_environment(
    control: Control,
) -> None:
    manager = manager_of(max_sessions=1)
    with pytest.raises(UnknownTask):
        await manager.create(new(task_id="none"))
    assert manager.num_sessions == 0
    await manager.create(new())


async def test_the_first_reply_tells_the_lease_from_when_the_episode_had_begun(
    control: Control, clock: Clock
) -> None:
    manager = manager_of()
    attempt = Attempt(lambda: manager.create(new(task_id="slow", lease_s=10)))
    async with anyio.create_task_group() as group:
        group.start_soon(attempt.run)
        await control.entered("begin")
        clock.now += 100
        control.open("begin")
    reply = SessionReply.model_validate_json(str(await attempt.result(), "ascii"))  # type: ignore[call-overload]
    assert reply.lease_expires_at == 1e9 + 1000 + 100 + 10


async def test_a_session_that_is_being_made_can_be_deleted_and_is_then_gone(
    control: Control,
) -> None:
    manager = manager_of()
    made = Attempt(lambda: manager.create(new(task_id="slow")))
    deleted = Attempt(lambda: manager.delete("s"))
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
    control: Control,
) -> None:
    manager = manager_of()
    async with anyio.create_task_group() as group:
        group.start_soon(manager.create, new(task_id="slow"))
        await control.entered("begin")
        group.cancel_scope.cancel()
        control.open("begin")
    await manager.create(new(task_id="slow"))
    assert control.num_begun == 1


async def test_options_with_numbers_that_json_does_not_have_are_invalid_input(
    control: Control,
) -> None:
    manager = manager_of()
    body = b'{"env_id":"test/Stub-v0","task_id":"train-0","options":{"malformed_penalty":NaN}}'
    with pytest.raises(InvalidInput, match="finite"):
        await manager.create(CreateSession.model_validate_json(body))


# Capacity.


async def test_a_full_server_refuses_and_hands_out_nobody_elses_session(control: Control) -> None:
    manager = manager_of(max_sessions=2)
    await manager.create(new("a"))
    await manager.create(new("b"))
    with pytest.raises(CapacityExceeded) as caught:
        await manager.create(new(None))
    assert caught.value.members["retry_after_s"] == 5
    assert await manager.create(new("a"))  # a retry needs no new place
    await manager.delete("a")
    await manager.create(new("c"))
    assert manager.num_sessions == 2


async def test_a_session_that_is_being_made_takes_its_place_already(control: Control) -> None:
    manager = manager_of(max_sessions=1)
    async with anyio.create_task_group() as group:
        group.start_soon(manager.create, new(task_id="slow"))
        await control.entered("begin")
        with pytest.raises(CapacityExceeded):
            await manager.create(new("other"))
        control.open("begin")


# Steps.


async def test_concurrent_identical_steps_apply_once_and_get_the_same_bytes(
    control: Control,
) -> None:
    manager = manager_of()
    await manager.create(new())
    attempts = [Attempt(lambda: manager.step("s", step(0, "wait x"))) for _ in range(5)]
    async with anyio.create_task_group() as group:
        for attempt in attempts:
            group.start_soon(attempt.run)
        await control.entered("x")
        control.open("x")
    assert len({await attempt.result() for attempt in attempts}) == 1
    assert control.acts == ["wait x"]


@pytest.mark.parametrize("env_id", [STUB, LIGHT])
async def test_a_replayed_step_gives_the_same_bytes_at_every_index(
    control: Control, env_id: str
) -> None:
    manager = manager_of()
    await manager.create(new(env_id=env_id))
    # Long enough that older replies are kept compressed.
    actions = [f"go {index} " + "word " * 2000 for index in range(4)]
    replies = [await manager.step("s", step(index, text)) for index, text in enumerate(actions)]
    again = [await manager.step("s", step(index, text)) for index, text in enumerate(actions)]
    assert again == replies
    assert [StepReply.model_validate_json(reply).step_index for reply in replies] == [0, 1, 2, 3]
    assert control.acts == actions


async def test_older_replies_of_long_transcripts_take_a_fraction_of_their_size(
    control: Control,
) -> None:
    manager = manager_of()
    await manager.create(new(options={"rendering": "accumulated"}))
    sent = sum([len(await manager.step("s", step(index, "go" * 2500))) for index in range(20)])
    kept = sum(
        len(taken.reply)
        for taken in manager._sessions["s"]._taken
        if isinstance(taken.reply, bytes)
    )
    assert sent > 1_000_000
    assert kept < sent / 5


async def test_a_step_with_another_action_conflicts_also_after_it_failed(control: Control) -> None:
    manager = manager_of()
    await manager.create(new())
    with pytest.raises(EnvError):
        await manager.step("s", step(0, "raise"))
    with pytest.raises(StepConflict):
        await manager.step("s", step(0, "go"))


async def test_a_failed_step_fails_again_the_same_way_and_grows_no_traceback(
    control: Control,
) -> None:
    manager = manager_of()
    await manager.create(new())
    problems = []
    for _ in range(3):
        with pytest.raises(EnvError, match="act broke") as caught:
            await manager.step("s", step(0, "raise"))
        problems.append(caught.value.to_problem())
    assert problems[0] == problems[1] == problems[2]
    assert problems[0]["trainable"] is False
    kept = manager._sessions["s"]._taken[0].reply
    assert isinstance(kept, EnvError)
    assert kept.__traceback__ is None
    with pytest.raises(EpisodeEnded) as ended:
        await manager.step("s", step(1))
    assert ended.value.members["trainable"] is False
    assert (await state(manager)).trainable is False
    assert control.acts == ["raise"]


async def test_a_reply_that_is_no_json_is_the_environments_failure(control: Control) -> None:
    manager = manager_of()
    await manager.create(new())
    for _ in range(2):
        with pytest.raises(EnvError):
            await manager.step("s", step(0, "object"))
    assert (await state(manager)).trainable is False


async def test_a_cancelled_step_goes_on_and_its_retry_gets_the_reply(control: Control) -> None:
    manager = manager_of()
    await manager.create(new())
    async with anyio.create_task_group() as group:
        group.start_soon(manager.step, "s", step(0, "wait x"))
        await control.entered("x")
        group.cancel_scope.cancel()
        control.open("x")
    reply = StepReply.model_validate_json(await manager.step("s", step(0, "wait x")))
    assert (reply.step_index, reply.reward) == (0, 1.0)
    assert control.acts == ["wait x"]


async def test_a_step_that_is_cancelled_while_it_waits_its_turn_harms_no_episode(
    control: Control,
) -> None:
    manager = manager_of()
    for session_id in ("busy", "s"):
        await manager.create(new(session_id))
    async with anyio.create_task_group() as group:
        group.start_soon(manager.step, "busy", step(0, "wait x"))
        await control.entered("x")
        group.start_soon(manager.step, "s", step(0))
        await turns()
        group.cancel_scope.cancel()
        control.open("x")
    reply = StepReply.model_validate_json(await manager.step("s", step(0)))
    assert (reply.step_index, reply.trainable) == (0, True)
    assert control.acts == ["wait x", "go"]


async def test_a_step_behind_a_deleted_session_is_told_so_and_touches_nothing(
    control: Control,
) -> None:
    manager = manager_of()
    await manager.create(new())
    taken = Attempt(lambda: manager.step("s", step(0, "wait x")))
    deleted = Attempt(lambda: manager.delete("s"))
    late = Attempt(lambda: manager.step("s", step(1)))
    again = Attempt(lambda: manager.delete("s"))
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


async def test_deleting_an_old_session_spares_a_new_one_of_the_same_id(control: Control) -> None:
    manager = manager_of()
    await manager.create(new())
    taken = Attempt(lambda: manager.step("s", step(0, "wait x")))
    calls = [
        lambda: manager.delete("s"),
        lambda: manager.create(new()),
        lambda: manager.delete("s"),
    ]
    later = [Attempt(call) for call in calls]
    async with anyio.create_task_group() as group:
        group.start_soon(taken.run)
        await control.entered("x")
        for attempt in later:
            group.start_soon(attempt.run)
            await turns()
        control.open("x")
    assert [type(attempt.error) for attempt in later] == [type(None), type(None), UnknownSession]
    assert (await state(manager)).step_index == 0
    assert control.num_begun == 2


async def test_an_action_of_more_than_a_million_characters_is_invalid_input(
    control: Control,
) -> None:
    manager = manager_of()
    await manager.create(new())
    with pytest.raises(InvalidInput, match="1000000 characters"):
        await manager.step("s", step(0, "x" * 1_000_001))
    await manager.step("s", step(0, "x" * 1_000_000))
    with pytest.raises(InvalidInput, match="1000000 characters"):
        await manager.step("s", step(1, {"content": "x" * 1_000_000}))


async def test_a_long_action_is_parsed_off_the_event_loop(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def parsing(action: ActionModel) -> Action:
        threads.append(threading.current_thread())
        return read_action(action)

    monkeypatch.setattr(sessions_module, "read_action", parsing)
    manager = manager_of()
    await manager.create(new())
    actions: list[ActionModel] = ["x" * 8_000, "x" * 8_001, {"content": "x" * 8_000}]
    for step_index, action in enumerate(actions):
        await manager.step("s", step(step_index, action))
    here = threading.current_thread()
    assert [thread is here for thread in threads] == [True, False, False]


# Deadlines.


async def test_a_step_over_its_deadline_ends_its_own_session_only(control: Control) -> None:
    manager = manager_of(step_deadline_s=0.05)
    for session_id in ("hung", "same"):
        await manager.create(new(session_id))
    await manager.create(new("other", env_id=LIGHT))
    with pytest.raises(DeadlineExceeded) as caught:
        await manager.step("hung", step(0, "wait x"))
    assert caught.value.members == {"deadline_s": 0.05, "trainable": False}
    await manager.step("same", step(0))
    await manager.step("other", step(0))
    assert (await state(manager, "hung")).trainable is False
    assert (await state(manager, "same")).trainable is True
    with pytest.raises(DeadlineExceeded):
        await manager.step("hung", step(0, "wait x"))
    assert control.acts == ["wait x", "go", "go"]


async def test_steps_that_wait_behind_a_hung_one_are_taken_when_it_is_given_up(
    control: Control,
) -> None:
    manager = manager_of(step_deadline_s=0.1)
    names = ["hung", *"abcdef"]
    for session_id in names:
        await manager.create(new(session_id))
    hung = Attempt(lambda: manager.step("hung", step(0, "wait x")))
    others = [Attempt(lambda name=name: manager.step(name, step(0))) for name in names[1:]]  # type: ignore[misc]
    async with anyio.create_task_group() as group:
        group.start_soon(hung.run)
        await control.entered("x")
        for attempt in others:
            group.start_soon(attempt.run)
    assert isinstance(hung.error, DeadlineExceeded)
    assert [attempt.error for attempt in others] == [None] * 6


async def test_a_step_whose_turn_does_not_come_is_not_taken_and_can_be_sent_again(
    control: Control,
) -> None:
    manager = manager_of(queue_deadline_s=0.05)
    await manager.create(new("busy"))
    await manager.create(new("s"))
    async with anyio.create_task_group() as group:
        group.start_soon(manager.step, "busy", step(0, "wait x"))
        await control.entered("x")
        with pytest.raises(CapacityExceeded):
            await manager.step("s", step(0))
        control.open("x")
    reply = StepReply.model_validate_json(await manager.step("s", step(0)))
    assert reply.step_index == 0
    assert control.acts == ["wait x", "go"]


async def test_what_a_hung_environment_does_later_does_not_show(control: Control) -> None:
    threads = {*threading.enumerate()}
    manager = manager_of(step_deadline_s=0.05)
    await manager.create(new())
    with pytest.raises(DeadlineExceeded):
        await manager.step("s", step(0, "wait x"))
    before = await state(manager)
    env = manager._sessions["s"].env
    assert env is not None
    control.open("x")
    for thread in set(threading.enumerate()) - threads:  # the abandoned one ends with its step
        await anyio.to_thread.run_sync(thread.join, 20)
    assert env.num_steps == 1
    after = await state(manager)
    assert after.observation == before.observation
    assert after.trace_key == before.trace_key


async def test_an_expert_that_raises_is_an_env_error_and_the_episode_goes_on(
    control: Control,
) -> None:
    manager = manager_of()
    await manager.create(new())
    await manager.step("s", step(0, "no advice"))
    with pytest.raises(EnvError, match="expert broke"):
        await manager.expert("s")
    await manager.step("s", step(1))
    assert (await manager.expert("s")).action == "end"


# Leases.


async def test_an_expired_session_is_closed_and_answers_with_its_last_step_index(
    control: Control, clock: Clock
) -> None:
    manager = manager_of()
    await manager.create(new(lease_s=10))
    await manager.step("s", step(0))
    clock.now += 11
    assert await manager.sweep() == 1
    assert (manager.num_sessions, control.num_closed) == (0, 1)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: manager.step("s", step(1)),
        lambda: manager.get("s"),
        lambda: manager.expert("s"),
        lambda: manager.delete("s"),
    ]
    for call in calls:
        with pytest.raises(SessionExpired) as caught:
            await call()
        assert caught.value.members["last_step_index"] == 0
        assert caught.value.members["trainable"] is False


@pytest.mark.parametrize("use", ["create", "step", "get", "expert"])
async def test_every_use_renews_the_lease(control: Control, clock: Clock, use: str) -> None:
    manager = manager_of()
    await manager.create(new(lease_s=10))
    uses: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: manager.create(new(lease_s=10)),
        "step": lambda: manager.step("s", step(0)),
        "get": lambda: manager.get("s"),
        "expert": lambda: manager.expert("s"),
    }
    clock.now += 9
    await uses[use]()
    clock.now += 9
    assert await manager.sweep() == 0
    clock.now += 2
    assert await manager.sweep() == 1


async def test_a_session_in_the_middle_of_a_long_step_is_never_reaped(
    control: Control, clock: Clock
) -> None:
    manager = manager_of()
    await manager.create(new(lease_s=10))
    taken = Attempt(lambda: manager.step("s", step(0, "wait x")))
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


async def test_an_expired_id_can_be_used_for_a_new_session(control: Control, clock: Clock) -> None:
    manager = manager_of()
    await manager.create(new(lease_s=1))
    clock.now += 2
    await manager.sweep()
    await manager.create(new(lease_s=1))
    assert (await state(manager)).step_index == 0


async def test_only_so_many_expiries_are_remembered_the_latest_ones(
    control: Control, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "MAX_REMEMBERED_EXPIRIES", 2)
    manager = manager_of()
    for session_id in ("a", "b", "c"):
        await manager.create(new(session_id, lease_s=1))
        clock.now += 2
        await manager.sweep()
    with pytest.raises(UnknownSession):
        await manager.get("a")
    with pytest.raises(SessionExpired):
        await manager.get("b")


async def test_an_environment_that_fails_to_close_does_not_keep_others_open(
    control: Control, clock: Clock
) -> None:
    manager = manager_of()
    for session_id in ("a", "b"):
        await manager.create(new(session_id, lease_s=1))
    await manager.step("a", step(0, "no close"))
    clock.now += 2
    assert await manager.sweep() == 2
    assert control.num_closed == 2


async def test_closing_the_manager_closes_every_environment_and_waits_for_no_hung_one(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "CLOSE_DEADLINE_S", 0.05)
    manager = manager_of()
    for session_id in ("a", "b"):
        await manager.create(new(session_id, env_id=LIGHT))
    await manager.create(new("hung"))
    hung = Attempt(lambda: manager.step("hung", step(0, "wait x")))
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
    control: Control,
) -> None:
    manager = manager_of()
    async with anyio.create_task_group() as group:
        for index in range(8):
            group.start_soon(manager.create, new(f"s{index}"))
    async with anyio.create_task_group() as group:
        for index in range(8):
            group.start_soon(manager.step, f"s{index}", step(0))
    assert len(control.acts) == 8
    assert control.most_at_once == 1


async def test_only_environments_that_cannot_block_run_on_the_event_loops_thread(
    control: Control,
) -> None:
    manager = manager_of()
    for env_id in (LIGHT, STUB):
        session_id = env_id.replace("/", ":")
        await manager.create(new(session_id, env_id=env_id))
        await manager.step(session_id, step(0))
    here = threading.current_thread()
    assert [thread is here for thread in control.threads] == [True, False]


async def test_five_thousand_keydoor_sessions_take_little_memory_and_give_it_back() -> None:
    manager = manager_of(max_sessions=5_000)
    request = new(None, env_id="steppo/KeyDoor-v0", task_id="train/0", lease_s=1e-9)
    await manager.create(request)
    await manager.sweep()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(500):
            await manager.create(request)
        used, _ = tracemalloc.get_traced_memory()
        assert await manager.sweep() == 500
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used - before < 500 * 20_000
    assert after - before < 500 * 400  # the ids of the expired
