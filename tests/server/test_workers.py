import threading
from collections.abc import Callable

import anyio
import anyio.to_thread
import pytest

from steppo_env.errors import CapacityExceeded, DeadlineExceeded
from steppo_server.workers import InlineWorker, ThreadWorker, Worker

pytestmark = pytest.mark.anyio

WORKERS: list[Callable[[], Worker]] = [InlineWorker, lambda: ThreadWorker(10)]


@pytest.mark.parametrize("make", WORKERS)
async def test_a_result_or_an_exception_comes_back_as_it_was(make: Callable[[], Worker]) -> None:
    worker = make()
    assert await worker.run(lambda: 7, 10) == 7
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0, 10)
    assert await worker.run(lambda: 8, 10) == 8


async def test_a_timeout_that_the_code_raises_itself_is_no_missed_deadline() -> None:
    def work() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own") as caught:
        await ThreadWorker(10).run(work, 10)
    assert not isinstance(caught.value, DeadlineExceeded)


async def test_a_stop_iteration_arrives_as_an_error_and_hangs_nothing() -> None:
    with anyio.fail_after(10), pytest.raises(RuntimeError, match="StopIteration"):
        await ThreadWorker(10).run(lambda: next(iter(())), 10)


async def test_all_calls_run_on_one_daemon_thread_that_is_not_the_event_loops() -> None:
    worker = ThreadWorker(10)
    threads = [await worker.run(threading.current_thread, 10) for _ in range(3)]
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()
    assert threads[0].daemon  # one that hangs must not keep the process from ending


async def test_inline_code_runs_where_it_stands() -> None:
    assert await InlineWorker().run(threading.current_thread, 10) is threading.current_thread()


async def test_after_a_missed_deadline_the_next_call_gets_another_thread() -> None:
    worker = ThreadWorker(10)
    gate = threading.Event()
    hung: list[threading.Thread] = []

    def hang() -> None:
        hung.append(threading.current_thread())
        gate.wait(20)

    with pytest.raises(DeadlineExceeded) as caught:
        await worker.run(hang, 0.02)
    assert caught.value.members == {"deadline_s": 0.02}
    assert await worker.run(threading.current_thread, 10) is not hung[0]
    gate.set()
    await anyio.to_thread.run_sync(hung[0].join, 10)
    assert not hung[0].is_alive()  # it ends with what it was doing


async def test_waiting_for_earlier_calls_does_not_count_towards_the_deadline() -> None:
    worker = ThreadWorker(10)
    gate = threading.Event()
    entered = threading.Event()
    results: list[int] = []

    def hold() -> None:
        entered.set()
        gate.wait(20)

    async def second() -> None:
        results.append(await worker.run(lambda: 1, 0.05))

    async with anyio.create_task_group() as group:
        group.start_soon(worker.run, hold, 10)
        await anyio.to_thread.run_sync(entered.wait, 10)
        group.start_soon(second)
        with anyio.move_on_after(0.1) as longer:  # than the second call's deadline
            await anyio.sleep_forever()
        assert longer.cancelled_caught
        gate.set()
    assert results == [1]


async def test_a_call_whose_turn_does_not_come_is_refused_and_never_begins() -> None:
    worker = ThreadWorker(0.02)
    gate = threading.Event()
    entered = threading.Event()
    begun: list[int] = []

    def hold() -> None:
        entered.set()
        gate.wait(20)

    async with anyio.create_task_group() as group:
        group.start_soon(worker.run, hold, 10)
        await anyio.to_thread.run_sync(entered.wait, 10)
        with pytest.raises(CapacityExceeded) as caught:
            await worker.run(lambda: begun.append(1), 10)
        assert caught.value.members == {"retry_after_s": 5}
        gate.set()
    await worker.run(lambda: begun.append(2), 10)
    assert begun == [2]


async def test_a_cancelled_call_that_has_begun_is_waited_for_and_one_that_waits_is_not() -> None:
    worker = ThreadWorker(10)
    gate = threading.Event()
    entered = threading.Event()
    done: list[str] = []

    def hold() -> None:
        entered.set()
        gate.wait(20)
        done.append("begun")

    async with anyio.create_task_group() as group:
        group.start_soon(worker.run, hold, 10)
        await anyio.to_thread.run_sync(entered.wait, 10)
        with anyio.move_on_after(0.01) as waiting:
            await worker.run(lambda: done.append("waiting"), 10)
        assert waiting.cancelled_caught
        group.cancel_scope.cancel()
        gate.set()
    assert done == ["begun"]
    assert await worker.run(lambda: 1, 10) == 1


async def test_closing_ends_the_thread_after_its_work_and_a_later_call_gets_a_new_one() -> None:
    worker = ThreadWorker(10)
    thread = await worker.run(threading.current_thread, 10)
    worker.close()
    await anyio.to_thread.run_sync(thread.join, 10)
    assert not thread.is_alive()
    assert await worker.run(threading.current_thread, 10) is not thread
    worker.close()
    worker.close()
