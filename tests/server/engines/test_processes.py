"""Real processes: killed, hung, orphaned, closed."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from steppo_env.catalogue import Catalogue
from steppo_env.errors import DeadlineExceeded, EnvError, WorkerDied
from steppo_server.engines import ProcessWorker, processes
from tests.server.engines.conftest import (
    ENV_IDS,
    ODD,
    MakePipe,
    Running,
    start_of,
    step,
    text_of,
    until,
)

pytestmark = pytest.mark.anyio

UVLOOP = ("asyncio", {"use_uvloop": True})


def is_gone(pid: int) -> bool:
    """True when there is no such process, not even a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def has_ended(pid: int) -> bool:
    """True when the process runs no more; nobody may have waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc of Linux")


async def test_a_process_has_what_the_server_has_and_what_it_prints_goes_to_stderr(
    running: Running, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEPPO_TEST_THING", "here")
    async with running("process") as worker:
        await worker.call("begin", start_of(), deadline_s=20)
        assert text_of(await step(worker, 0, "pid")) == str(worker.pid) != str(os.getpid())
        assert text_of(await step(worker, 1, "env STEPPO_TEST_THING")) == "here"
        assert text_of(await step(worker, 2, "env STEPPO_HOME")) == os.environ["STEPPO_HOME"]
        assert text_of(await step(worker, 3, "say aloud")) == "''"  # its standard input is empty
        os.kill(worker.pid, signal.SIGINT)  # Ctrl-C is for the server
        assert text_of(await step(worker, 4, "pid")) == str(worker.pid)
        with pytest.raises(EnvError, match="the answer of describe cannot be sent"):
            await worker.call("describe", ENV_IDS["Unsendable"], deadline_s=20)
    printed = capfd.readouterr()
    assert "aloud" not in printed.out
    assert "aloud" in printed.err


async def test_a_process_that_is_killed_while_idle_is_replaced_and_its_episodes_are_rebuilt(
    running: Running,
) -> None:
    async with running("process") as worker:
        state = await worker.call("begin", start_of(), deadline_s=20)
        taken = await step(worker, 0)
        killed = worker.pid
        os.kill(killed, signal.SIGKILL)
        await until(lambda: worker.generation == 2)
        assert worker.num_sessions == 0
        with pytest.raises(WorkerDied) as caught:
            await step(worker, 1)
        assert caught.value.members == {"was_begun": False}

        keys = (state.trace_key, taken.trace_key)
        again = start_of(actions=("go",), trace_keys=keys, env_version=state.env_version)
        assert (await worker.call("begin", again, deadline_s=20)).last_step == taken.body
        assert worker.num_sessions == 1
        assert worker.pid != killed
        await until(lambda: is_gone(killed))


async def test_a_process_that_dies_in_a_call_fails_that_call_and_a_waiting_beginning_goes_on(
    running: Running, pipe: MakePipe
) -> None:
    entered, gate = pipe("entered"), pipe("gate")
    failed: list[WorkerDied] = []

    async with running("process") as worker:
        for session_id in ("s", "other"):
            await worker.call("begin", start_of(session_id), deadline_s=20)

        async def dying(session_id: str, action: str) -> None:
            with pytest.raises(WorkerDied) as caught:
                await step(worker, 0, action, session_id)
            failed.append(caught.value)

        async def beginning() -> None:
            await worker.call("begin", start_of("new"), deadline_s=20)

        async with anyio.create_task_group() as group:
            group.start_soon(dying, "s", f"hold {entered} {gate}")
            await entered.read()
            group.start_soon(dying, "other", "go")
            group.start_soon(beginning)
            await until(lambda: worker.load.num_waiting == 2)
            os.kill(worker.pid, signal.SIGKILL)
        assert [error.members for error in failed] == [{"was_begun": True}, {"was_begun": False}]
        assert worker.generation == 2
        assert worker.num_sessions == 1
        await step(worker, 0, session_id="new")
        with pytest.raises(WorkerDied):
            await step(worker, 1, "die", "new")
        assert worker.generation == 3


@pytest.mark.parametrize("anyio_backend", [UVLOOP], ids=["uvloop"])  # what servers run on
async def test_a_hung_process_is_killed_at_its_deadline_while_the_others_go_on(
    running: Running, pipe: MakePipe
) -> None:
    entered = pipe("entered")
    async with running("process") as worker, running("process") as other:
        await worker.call("begin", start_of(), deadline_s=20)
        await other.call("begin", start_of(), deadline_s=20)
        grandchild = int(text_of(await step(worker, 0, "child")))
        hung = worker.pid

        async def hang() -> None:
            with pytest.raises(DeadlineExceeded) as caught:
                await worker.call("step", "s", 1, f"hang {entered}", deadline_s=0.5)
            assert caught.value.members == {"deadline_s": 0.5}

        async with anyio.create_task_group() as group:
            group.start_soon(hang)
            assert await entered.read() == str(hung)
            for index in range(10):
                await step(other, index)
        assert (worker.generation, other.generation) == (2, 1)
        await until(lambda: is_gone(hung) and has_ended(grandchild))

        big = "hear " + "y" * 1_000_000
        await worker.call("begin", start_of(actions=("go", big)), deadline_s=20)
        assert len((await step(worker, 2, "big 1000000")).body) > 1_000_000
        await step(other, 10)


@needs_proc
async def test_closing_ends_idle_and_busy_processes_and_leaves_no_zombie_and_no_open_file(
    catalogue: Catalogue, pipe: MakePipe, caplog: pytest.LogCaptureFixture
) -> None:
    await anyio.to_thread.run_sync(int)  # the loop and its thread have their files now
    before = open_files()
    entered = pipe("entered")
    idle, busy, dying = (
        ProcessWorker(name, catalogue, (ODD,), queue_deadline_s=20, start_deadline_s=30)
        for name in ("idle", "busy", "dying")
    )
    for worker in (idle, busy, dying):
        worker.start()
    for worker in (idle, busy, dying):
        await worker.call("begin", start_of(), deadline_s=20)
    pids = [idle.pid, busy.pid, dying.pid]

    async def hang() -> None:
        with pytest.raises(WorkerDied):
            await step(busy, 0, f"hang {entered}")

    async with anyio.create_task_group() as group:
        group.start_soon(hang)
        await entered.read()
        with pytest.raises(DeadlineExceeded):
            await dying.call("step", "s", 0, f"hang {pipe('unread')}", deadline_s=0.01)
        pids.append(dying.pid)
        for worker in (idle, busy, dying):
            await worker.close()
    assert all(pid is not None and is_gone(pid) for pid in pids)
    assert open_files() == before
    assert "idle" not in caplog.text  # it ended by itself


@needs_proc
async def test_processes_end_with_the_server_however_it_ends(
    catalogue: Catalogue, pipe: MakePipe, tmp_path: Path
) -> None:
    told, hanging, locking = pipe("told"), pipe("hanging"), pipe("locking")
    program = tmp_path / "server.py"
    program.write_text(SERVER)
    server = await anyio.open_process(
        [sys.executable, str(program), str(told), str(hanging), str(locking)],
        stdin=None,
        stdout=None,
        stderr=None,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        with anyio.fail_after(30):
            pids = [int(await hanging.read()), int(await locking.read()), int(await told.read())]
    finally:
        server.kill()
        await server.wait()
    ended_at = time.monotonic()
    await until(lambda: all(map(has_ended, pids)))
    assert time.monotonic() - ended_at < 2


SERVER = """
import sys
from pathlib import Path

import anyio

from steppo_env.catalogue import Catalogue
from steppo_server.engines import ProcessWorker
from steppo_server.episode import EpisodeStart

ODD = "test/Odd-v0"


async def main(told, hanging, locking):
    workers = [
        ProcessWorker(str(number), Catalogue(), (ODD,), queue_deadline_s=20, start_deadline_s=30)
        for number in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        await worker.call("begin", EpisodeStart("s", "s", ODD, {}, 0, task_id="train-0"), deadline_s=20)
    async with anyio.create_task_group() as group:
        for worker, action in zip(workers, (f"hang {hanging}", f"lock {locking}")):
            group.start_soon(call, worker, action)
        await anyio.to_thread.run_sync(Path(told).write_text, str(workers[2].pid))


async def call(worker, action):
    await worker.call("step", "s", 0, action, deadline_s=60)


anyio.run(main, *sys.argv[1:])
"""


async def test_a_process_that_dies_whenever_it_starts_is_not_started_for_ever(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "QUICK_DEATH_S", 0.0)  # however long it takes to start
    monkeypatch.setattr(processes, "MAX_QUICK_DEATHS", 2)
    monkeypatch.setattr(processes, "FIRST_BACKOFF_S", 30.0)
    monkeypatch.setattr(processes, "MAX_BACKOFF_S", 60.0)
    async with running("process", env_names=(ENV_IDS["Deadly"],)) as worker:
        for _ in range(2):
            with pytest.raises(WorkerDied):
                await worker.call("begin", start_of(), deadline_s=20)
        with anyio.fail_after(1), pytest.raises(WorkerDied, match="died 2 times in a row") as died:
            await worker.call("begin", start_of(), deadline_s=20)
        assert died.value.members == {"was_begun": False, "retry_after_s": 30}
        assert worker.pid is None


async def test_a_machine_without_room_for_processes_is_asked_less_and_less_often(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _stop_the_clock(monkeypatch)
    asked_at: list[float] = []

    def refuse(*_: object) -> None:
        asked_at.append(clock())
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(processes, "SpawnedHost", refuse)
    async with running("process") as worker:
        for _ in range(5):
            with pytest.raises(WorkerDied):
                await worker.call("begin", start_of(), deadline_s=20)
        assert asked_at == pytest.approx([0, 0, 0.1, 0.3, 0.7])
        with pytest.raises(WorkerDied, match="died 5 times in a row"):
            await worker.call("begin", start_of(), deadline_s=20)
        assert len(asked_at) == 5
        assert worker.generation == 1


async def test_a_process_that_is_not_ready_in_time_is_killed(running: Running) -> None:
    async with running("process", start_deadline_s=0.01) as worker:
        worker.start()
        pid = worker.pid
        with pytest.raises(WorkerDied) as caught:
            await worker.call("begin", start_of(), deadline_s=20)
        assert caught.value.members["was_begun"] is False
        await until(lambda: is_gone(pid))


def _stop_the_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """Let time pass only where the code sleeps; it begins at 0."""
    now = [0.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    class Sleeping:
        move_on_after = staticmethod(anyio.move_on_after)

        @staticmethod
        async def sleep(delay_s: float) -> None:
            now[0] += delay_s

    monkeypatch.setattr(processes, "time", Clock)
    monkeypatch.setattr(processes, "anyio", Sleeping)
    return lambda: now[0]
