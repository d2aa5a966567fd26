"""What holds for every engine."""

import json
import threading
from collections import defaultdict
from typing import Any

import anyio
import pytest

from steppo_env.catalogue import Catalogue
from steppo_env.errors import (
    CapacityExceeded,
    EnvError,
    EpisodeEnded,
    StepIndexMismatch,
    UnknownTask,
    WorkerDied,
)
from steppo_env.wire import read_action
from steppo_server import episode
from steppo_server.engines import inline
from steppo_server.host import EnvHost
from tests.server.engines.conftest import (
    KINDS,
    ODD,
    MakePipe,
    Running,
    start_of,
    step,
    text_of,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", KINDS)
async def test_an_episode_goes_the_same_way_in_every_engine(
    kind: str, running: Running, catalogue: Catalogue, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(kind) as worker:
        host = EnvHost(catalogue)
        state = await worker.call("begin", start_of(), deadline_s=20)
        assert state == host.begin(start_of())
        assert worker.num_sessions == 1

        taken = await step(worker, 0)
        expected = host.step("s", 0, "go")
        assert taken.body == expected.body
        assert (taken.trace_key, taken.reward) == (expected.trace_key, 1.0)
        assert await worker.call("look", "s", deadline_s=20) == host.look("s")
        assert await worker.call("expert", "s", deadline_s=20) == host.expert("s")
        assert await worker.call("snapshot", "s", deadline_s=20) is None

        with pytest.raises(StepIndexMismatch) as mismatch:
            await step(worker, 7)
        assert mismatch.value.members == {"expected": 1}
        with pytest.raises(EnvError, match="act raised RuntimeError: act broke"):
            await step(worker, 1, "raise")
        with pytest.raises(EpisodeEnded) as ended:
            await step(worker, 2)
        assert ended.value.members == {"num_steps": 2, "trainable": False}

        await worker.call("close", "s", deadline_s=20)
        assert worker.num_sessions == 0
        with pytest.raises(WorkerDied) as died:
            await step(worker, 2)
        assert died.value.members == {"was_begun": False}
        assert worker.generation == 1
    with pytest.raises(CapacityExceeded, match="closed"):
        await worker.call("look", "s", deadline_s=20)
    if kind == "process":
        assert "act broke" in capfd.readouterr().err  # the traceback, which does not pickle


@pytest.mark.parametrize("kind", KINDS)
async def test_failures_and_odd_ends_of_a_method_end_nothing_else(
    kind: str, running: Running
) -> None:
    async with running(kind) as worker:
        for task_id, error in (("none", UnknownTask), ("train-2", EnvError)):
            with pytest.raises(error):
                await worker.call("begin", start_of(task_id=task_id), deadline_s=20)
            assert worker.num_sessions == 0
        await worker.call("begin", start_of(), deadline_s=20)
        with pytest.raises(EnvError, match="SystemExit: leaving"):
            await step(worker, 0, "leave")
        with pytest.raises(EnvError, match="list_tasks raised TypeError"):
            await worker.call("list_tasks", ODD, "train", "three", deadline_s=20)
        page = await worker.call("list_tasks", ODD, "train", 2, deadline_s=20)
        assert [task.task_id for task in page.tasks] == ["train-0", "train-1"]
        assert (await worker.call("describe", ODD, deadline_s=20)).splits == {"train": 3}
        assert worker.generation == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_200_concurrent_calls_keep_their_order_within_each_session(
    kind: str, running: Running
) -> None:
    sessions = [f"s{number}" for number in range(10)]
    replies: defaultdict[str, list[Any]] = defaultdict(list)

    async with running(kind) as worker:
        for session_id in sessions:
            await worker.call("begin", start_of(session_id), deadline_s=20)
        assert worker.num_sessions == 10

        async def take(session_id: str, index: int) -> None:
            taken = await step(worker, index, f"go {index}", session_id)
            replies[session_id].append((session_id, index, json.loads(taken.body + b"}")))

        async with anyio.create_task_group() as group:
            for index in range(20):
                for session_id in sessions:
                    group.start_soon(take, session_id, index)
        assert worker.load.num_waiting == 0

    for session_id in sessions:
        assert [index for _, index, _ in replies[session_id]] == list(range(20))
        for _, index, reply in replies[session_id]:
            assert reply["session_id"] == session_id
            assert reply["step_index"] == index
            assert reply["observation"]["text"] == f"go {index}"


@pytest.mark.parametrize("kind", ["inline", "thread"])  # for processes see test_processes.py
async def test_a_megabyte_goes_in_and_comes_out(kind: str, running: Running) -> None:
    action = "say nothing: " + "y" * 1_000_000
    async with running(kind) as worker:
        await worker.call("begin", start_of(), deadline_s=20)
        taken = await step(worker, 0, "big 1000000")
        assert text_of(taken) == "x" * 1_000_000
        taken = await step(worker, 1, action.replace("say", "hear"))
        assert text_of(taken).endswith("y" * 1_000_000)


async def test_inline_code_runs_where_it_stands_and_long_actions_are_parsed_elsewhere(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed_on: list[threading.Thread] = []

    def reading(action: Any) -> Any:
        parsed_on.append(threading.current_thread())
        return read_action(action)

    monkeypatch.setattr(inline, "read_action", reading)
    monkeypatch.setattr(episode, "read_action", reading)
    async with running("inline") as worker:
        await worker.call("begin", start_of(), deadline_s=20)
        await step(worker, 0, "go")
        await step(worker, 1, "go " * 4_000)
        again = start_of("again", actions=("go", "go " * 4_000))
        await worker.call("begin", again, deadline_s=20)
    here = threading.current_thread()
    assert [thread is here for thread in parsed_on] == [True, False, False, True]


@pytest.mark.parametrize("kind", ["thread", "process"])
async def test_a_begun_call_is_waited_for_when_cancelled_and_a_waiting_one_never_begins(
    kind: str, running: Running, pipe: MakePipe
) -> None:
    entered, gate = pipe("entered"), pipe("gate")
    async with running(kind) as worker:
        await worker.call("begin", start_of(), deadline_s=20)
        async with anyio.create_task_group() as group:
            group.start_soon(step, worker, 0, f"hold {entered} {gate}")
            await entered.read()
            with anyio.move_on_after(0.01) as waiting:
                await step(worker, 1)
            assert waiting.cancelled_caught
            assert worker.load.num_waiting == 0
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await gate.write()
        assert (await step(worker, 1)).trace_key  # and not 0, nor 2
        assert worker.generation == 1


@pytest.mark.parametrize("kind", ["thread", "process"])
async def test_a_call_whose_turn_does_not_come_in_time_is_refused_and_never_begins(
    kind: str, running: Running, pipe: MakePipe
) -> None:
    entered, gate = pipe("entered"), pipe("gate")
    async with running(kind, queue_deadline_s=0.05) as worker:
        await worker.call("begin", start_of(), deadline_s=20)
        async with anyio.create_task_group() as group:
            group.start_soon(step, worker, 0, f"hold {entered} {gate}")
            await entered.read()
            with pytest.raises(CapacityExceeded, match=r"busy for 0\.05 s") as caught:
                await step(worker, 1)
            assert caught.value.members == {"retry_after_s": 5}
            await gate.write()
        await step(worker, 1)
