"""A server dies, and another one goes on with its journal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from steppo_env.errors import (
    DeadlineExceeded,
    EnvError,
    EnvironmentChanged,
    EpisodeEnded,
    ReplayDiverged,
    StepConflict,
    StepIndexMismatch,
    SteppoError,
    UnknownSession,
)
from steppo_env.wire import SessionReply
from steppo_server import host as host_module
from steppo_server.engines import ThreadWorker
from steppo_server.journal import Journalled
from steppo_server.problems import problem_bytes
from steppo_server.sessions import SessionManager
from tests.server import conftest
from tests.server.driving import LIGHT, OWNER, SAVING, STUB, new, state, step, take

if TYPE_CHECKING:
    from tests.server.conftest import Control, Managers

pytestmark = pytest.mark.anyio

KEYDOOR = "steppo/KeyDoor-v0"
Restart = Callable[[], SessionManager]


@pytest.fixture
def restart(managers: Managers, tmp_path: Path) -> Restart:
    """Return what begins the next server on one journal; those before it are left as they are."""
    return lambda: managers(journal=f"sqlite:///{tmp_path}/journal.db")


async def journalled(manager: SessionManager, session_id: str = "s") -> Journalled:
    found = await manager.journal.load(f"{OWNER}:{session_id}")
    assert found is not None
    return found


async def refused(call: Callable[[], Awaitable[object]], kind: type[SteppoError]) -> SteppoError:
    with pytest.raises(kind) as caught:
        await call()
    return caught.value


# The episode is the same.


@pytest.mark.parametrize("env_id", [STUB, LIGHT, SAVING])
async def test_every_reply_is_the_same_bytes_after_a_restart(
    control: Control, restart: Restart, env_id: str
) -> None:
    request = new(env_id=env_id, options={"rendering": "accumulated"})
    before = restart()
    created = await before.create(OWNER, request)
    steps = [step(0, "a"), step(1, {"role": "assistant", "content": "b é"}), step(2, "c")]
    replies = [await before.step(OWNER, "s", item) for item in steps]
    looked = SessionReply.model_validate_json(await before.get(OWNER, "s"))
    calls: list[tuple[Callable[[SessionManager], Awaitable[bytes]], bytes]] = [
        (lambda manager: manager.step(OWNER, "s", steps[2]), replies[2]),
        (lambda manager: manager.step(OWNER, "s", steps[0]), replies[0]),
        (lambda manager: manager.step(OWNER, "s", steps[1]), replies[1]),
        (lambda manager: manager.create(OWNER, request), created),
    ]
    for first in range(len(calls)):  # each of them as the first call after a restart, and later
        after = restart()
        for call, reply in calls[first:] + calls[:first]:
            assert await call(after) == reply
        again = SessionReply.model_validate_json(await after.get(OWNER, "s"))
        assert again.model_copy(update={"lease_expires_at": 0}) == looked.model_copy(
            update={"lease_expires_at": 0}
        )
    assert (await take(restart(), 3, "d")).step_index == 3


async def test_an_episode_that_was_interrupted_after_each_step_ends_as_an_undisturbed_one(
    restart: Restart,
) -> None:
    request = new(env_id=KEYDOOR, task_id="dev/5", options={"size": 4})
    undisturbed = restart()
    await undisturbed.create(OWNER, request.model_copy(update={"session_id": "u"}))
    await restart().create(OWNER, request)
    for step_index in range(100):
        advice = await undisturbed.expert(OWNER, "u")
        manager = restart()
        assert await manager.expert(OWNER, "s") == advice
        if advice.action is None:
            break
        expected = await take(undisturbed, step_index, advice.action, "u")
        taken = await take(manager, step_index, advice.action)
        assert taken.trace_key == expected.trace_key
        assert (taken.reward, taken.terminated) == (expected.reward, expected.terminated)
    assert (await state(restart())).terminated is True


async def test_a_session_that_nobody_stepped_goes_on_and_one_that_ended_stays_so(
    control: Control, restart: Restart
) -> None:
    before = restart()
    await before.create(OWNER, new("fresh"))
    await before.create(OWNER, new("over"))
    last = await before.step(OWNER, "over", step(0, "end"))
    after = restart()
    assert (await take(after, 0, "go", "fresh")).step_index == 0
    ended = await refused(lambda: after.step(OWNER, "over", step(1)), EpisodeEnded)
    assert ended.members == {"num_steps": 1, "trainable": True}
    assert await after.step(OWNER, "over", step(0, "end")) == last
    assert (await after.expert(OWNER, "over")).action is None


async def test_conflicts_are_told_after_a_restart_as_before_it(
    control: Control, restart: Restart
) -> None:
    before = restart()
    await before.create(OWNER, new())
    for index, action in enumerate("ab"):
        await take(before, index, action)
    for step_index in (0, 1):
        request = step(step_index, "x")
        conflict = await refused(partial(restart().step, OWNER, "s", request), StepConflict)
        assert conflict.members["step_index"] == step_index
    after = restart()
    gap = await refused(lambda: after.step(OWNER, "s", step(3)), StepIndexMismatch)
    assert gap.members["expected"] == 2
    assert len((await journalled(after)).steps) == 2


async def test_a_deleted_session_stays_deleted(control: Control, restart: Restart) -> None:
    before = restart()
    await before.create(OWNER, new())
    await take(before, 0)
    await before.delete(OWNER, "s")
    after = restart()
    for call in (lambda: after.get(OWNER, "s"), lambda: after.step(OWNER, "s", step(0))):
        await refused(call, UnknownSession)
    await after.create(OWNER, new(seed=1))
    assert (await state(restart())).seed == 1


async def test_nothing_is_built_until_somebody_asks(control: Control, restart: Restart) -> None:
    before = restart()
    for index in range(5):
        await before.create(OWNER, new(f"s{index}"))
    after = restart()
    assert (after.num_sessions, control.num_begun) == (0, 5)
    await after.get(OWNER, "s3")
    assert (after.num_sessions, control.num_begun) == (1, 6)


async def test_many_requests_for_a_session_that_is_gone_from_memory_rebuild_it_once(
    control: Control, restart: Restart
) -> None:
    before = restart()
    await before.create(OWNER, new())
    reply = await before.step(OWNER, "s", step(0, "a"))
    after = restart()
    replies: list[bytes] = []

    async def again() -> None:
        replies.append(await after.step(OWNER, "s", step(0, "a")))

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(again)
    assert replies == [reply] * 8
    assert (control.num_begun, control.acts) == (2, ["a", "a"])


# Failures stay what they were.


@pytest.mark.parametrize("action", ["raise", "surrogate", "object"])
async def test_a_failed_step_stays_failed_and_is_not_tried_again(
    control: Control, restart: Restart, action: str
) -> None:
    before = restart()
    await before.create(OWNER, new())
    await take(before, 0, "a")
    first = await refused(lambda: before.step(OWNER, "s", step(1, action)), EnvError)
    after = restart()
    again = await refused(lambda: after.step(OWNER, "s", step(1, action)), EnvError)
    assert problem_bytes(again.to_problem()) == problem_bytes(first.to_problem())
    assert (again.status, again.members["trainable"]) == (500, False)
    await refused(lambda: after.step(OWNER, "s", step(1, "other")), StepConflict)
    ended = await refused(lambda: after.step(OWNER, "s", step(2)), EpisodeEnded)
    assert ended.members["trainable"] is False
    shown = await state(after)
    assert (shown.trainable, shown.step_index, shown.observation.text) == (False, 2, "a")
    assert (await take(after, 0, "a")).step_index == 0
    assert control.acts.count(action) == 1


async def test_a_step_over_its_deadline_stays_over_it(
    control: Control, managers: Managers, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    before = managers(journal=url, step_deadline_s=0.05)
    await before.create(OWNER, new())
    first = await refused(lambda: before.step(OWNER, "s", step(0, "wait x")), DeadlineExceeded)
    after = managers(journal=url)
    again = await refused(lambda: after.step(OWNER, "s", step(0, "wait x")), DeadlineExceeded)
    assert again.to_problem() == first.to_problem()
    assert control.acts == ["wait x"]


# What cannot be rebuilt is told, and nothing is written.


async def changed(manager: SessionManager, kind: type[SteppoError]) -> None:
    """Check that every use of the episode is refused as not trainable, and writes nothing."""
    before = await journalled(manager)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: manager.step(OWNER, "s", step(2, "next")),
        lambda: manager.step(OWNER, "s", step(1, "b")),
        lambda: manager.step(OWNER, "s", step(0, "luck")),
        lambda: manager.get(OWNER, "s"),
        lambda: manager.expert(OWNER, "s"),
    ]
    for call in calls:
        error = await refused(call, kind)
        assert (error.status, error.members["trainable"]) == (409, False)
    assert (await journalled(manager)).steps == before.steps


async def begun(restart: Restart) -> None:
    manager = restart()
    await manager.create(OWNER, new())
    await take(manager, 0, "luck")
    await take(manager, 1, "b")


async def test_another_version_of_the_data_is_told(
    control: Control, restart: Restart, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begun(restart)
    monkeypatch.setattr(conftest.Stub, "data_version", "2")
    await changed(restart(), EnvironmentChanged)
    monkeypatch.undo()


async def test_another_version_of_the_package_is_told_and_the_old_one_goes_on(
    control: Control, restart: Restart, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begun(restart)
    with monkeypatch.context() as patch:
        patch.setattr(host_module, "plugin_version", lambda env_id: "99")
        after = restart()
        await changed(after, EnvironmentChanged)
        await after.create(OWNER, new("new"))  # new ones can be made
    assert (await take(restart(), 2)).step_index == 2


async def test_a_session_that_cannot_be_rebuilt_can_be_deleted(
    control: Control, restart: Restart, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begun(restart)
    monkeypatch.setattr(host_module, "plugin_version", lambda env_id: "99")
    after = restart()
    await after.delete(OWNER, "s")
    await after.create(OWNER, new(seed=1))


async def test_a_step_that_comes_out_otherwise_the_second_time_is_told(
    control: Control, restart: Restart
) -> None:
    await begun(restart)
    control.luck += 1
    after = restart()
    await changed(after, ReplayDiverged)
    control.luck -= 1
    assert (await take(after, 2)).step_index == 2  # nothing is lost


async def test_a_beginning_that_comes_out_otherwise_the_second_time_is_told(
    control: Control, restart: Restart
) -> None:
    manager = restart()
    await manager.create(OWNER, new(task_id="luck"))
    await take(manager, 0)
    after = restart()
    await refused(lambda: after.step(OWNER, "s", step(1)), ReplayDiverged)
    assert len((await journalled(after)).steps) == 1
    # Where the episode still lives it goes on; only its past cannot be shown again.
    assert (await take(manager, 1)).step_index == 1


# Workers that die.


async def test_sessions_outlive_every_worker(control: Control, restart: Restart) -> None:
    manager = restart()
    for index in range(3):
        await manager.create(OWNER, new(f"s{index}"))
        await take(manager, 0, "a", f"s{index}")
    worker = manager._table._sessions[f"{OWNER}:s0"].worker
    assert isinstance(worker, ThreadWorker)
    worker._abandon()
    for index in range(3):
        assert (await take(manager, 1, "b", f"s{index}")).step_index == 1
    assert control.acts == ["a"] * 3 + ["a", "b"] * 3


async def test_an_episode_that_its_worker_does_not_know_is_rebuilt(
    control: Control, restart: Restart
) -> None:
    manager = restart()
    await manager.create(OWNER, new())
    await take(manager, 0, "a")
    worker = manager._table._sessions[f"{OWNER}:s"].worker
    assert worker is not None
    await worker.call("close", f"{OWNER}:s", deadline_s=5)
    assert (await state(manager)).step_index == 1
    await worker.call("close", f"{OWNER}:s", deadline_s=5)
    assert (await take(manager, 1, "b")).step_index == 1


# A real process.


@contextmanager
def server(url: str, **variables: str) -> Iterator[httpx.Client]:
    """Run a server on a journal until the end of the block, where it is killed with SIGKILL."""
    given = {"STEPPO_SERVER_JOURNAL": url, **variables}
    with subprocess.Popen(
        [sys.executable, "-m", "steppo_client", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **given},
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().removeprefix("serving ").strip()
            with httpx.Client(base_url=address, timeout=30) as client:
                yield client
        finally:
            process.kill()


def test_a_server_that_was_killed_is_replaced_by_one_that_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    create = {"env_id": KEYDOOR, "split": "dev", "index": 5, "session_id": "s"}
    steps = "/v1/sessions/s/steps"
    in_a_process = {"STEPPO_SERVER_PROCESSES": f'{{"{KEYDOOR}": 1}}'}
    with server(url, **in_a_process) as client:
        created = client.post("/v1/sessions", json=create)
        assert created.status_code == 201
        requests = []
        replies = []
        for step_index in range(3):
            action = client.get("/v1/sessions/s/expert").json()["action"]
            requests.append({"step_index": step_index, "action": action})
            replies.append(client.post(steps, json=requests[-1]).content)
    with server(url) as client:
        assert client.get("/healthz").json()["num_sessions"] == 0
        assert client.post(steps, json=requests[2]).content == replies[2]
        assert client.post("/v1/sessions", json=create).content == created.content
        assert [client.post(steps, json=request).content for request in requests] == replies
        action = client.get("/v1/sessions/s/expert").json()["action"]
        taken = client.post(steps, json={"step_index": 3, "action": action})
        assert (taken.status_code, taken.json()["trainable"]) == (200, True)
