import threading
from collections.abc import Callable

import anyio
import pytest

from steppo_env.errors import DeadlineExceeded, WorkerDied
from tests.server.engines.conftest import MakePipe, Running, start_of, step, until

pytestmark = pytest.mark.anyio


def threads_of(worker: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"steppo-{worker}"]


async def test_a_hung_thread_is_left_with_its_episodes_and_closes_them_when_it_returns(
    running: Running, pipe: MakePipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, gate = pipe("entered"), pipe("gate")
    async with running("thread") as worker:
        for session_id in ("s", "other"):
            await worker.call("begin", start_of(session_id), deadline_s=20)
        (hung,) = threads_of("odd")
        assert hung.daemon  # one that hangs must not keep the process from ending
        closed = _count_closes(monkeypatch)
        with pytest.raises(DeadlineExceeded) as caught:
            await worker.call("step", "s", 0, f"hold {entered} {gate}", deadline_s=0.1)
        assert caught.value.members == {"deadline_s": 0.1}
        assert worker.generation == 2
        assert worker.num_sessions == 0

        with pytest.raises(WorkerDied, match="rebuild"):
            await step(worker, 0, session_id="other")
        await worker.call("begin", start_of("other"), deadline_s=20)
        await step(worker, 0, session_id="other")
        assert closed() == 0
        await entered.read()
        await gate.write()
        await until(lambda: not hung.is_alive())
        assert closed() == 2
        await step(worker, 1, session_id="other")  # what the hung thread closed was its own
    assert closed() == 3
    assert not threads_of("odd")


async def test_waiting_for_earlier_calls_does_not_count_towards_the_deadline(
    running: Running, pipe: MakePipe
) -> None:
    entered, gate = pipe("entered"), pipe("gate")
    async with running("thread") as worker:
        await worker.call("begin", start_of(), deadline_s=20)
        await worker.call("begin", start_of("other"), deadline_s=20)

        async def quick() -> None:
            await worker.call("step", "other", 0, "go", deadline_s=0.5)

        async with anyio.create_task_group() as group:
            group.start_soon(step, worker, 0, f"hold {entered} {gate}")
            await entered.read()
            group.start_soon(quick)
            await until(lambda: worker.load.oldest_wait_s > 0.5)
            assert worker.load.num_waiting == 1
            await gate.write()
        assert worker.load.queue_delays_s[-1] > 0.5


def _count_closes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    import plugin_odd  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]

    closed: list[object] = []
    monkeypatch.setattr(plugin_odd.Odd, "close", lambda env: closed.append(env), raising=False)
    return lambda: len(closed)
