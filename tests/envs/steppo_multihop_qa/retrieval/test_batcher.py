"""Calls of many threads: sent together, answered apart, failing for their own content only."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from steppo_env.errors import TransportError
from steppo_multihop_qa.retrieval import batcher as module
from steppo_multihop_qa.retrieval.batcher import Batcher


class Gate:
    """A service that answers a request when it is let through, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.has_come = threading.Semaphore(0)
        self.let_through = threading.Semaphore(0)
        self.fails: Callable[[Sequence[str]], Exception | None] = lambda items: None

    def send(self, items: Sequence[str]) -> list[str]:
        self.asked.append(list(items))
        self.has_come.release()
        assert self.let_through.acquire(timeout=10)
        error = self.fails(items)
        if error is not None:
            raise error
        return [item.upper() for item in items]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as made:
        yield made


def make(gate: Gate, max_items: int = 64, deadline_s: float = 10.0) -> Batcher[str, str]:
    return Batcher(gate.send, "the test service", max_items=max_items, deadline_s=deadline_s)


def until_waiting(batcher: Batcher[str, str], count: int) -> None:
    deadline = time.monotonic() + 10
    while len(batcher._waiting) != count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def ask_behind(
    pool: ThreadPoolExecutor, gate: Gate, batcher: Batcher[str, str], calls: Sequence[list[str]]
) -> list[Future[Sequence[str]]]:
    """Ask `first`, and the calls in their order while that is under way."""
    futures = [pool.submit(batcher.ask, ["first"])]
    assert gate.has_come.acquire(timeout=10)
    for number, items in enumerate(calls, 1):
        futures.append(pool.submit(batcher.ask, items))
        until_waiting(batcher, number)
    return futures


def test_what_comes_during_a_request_goes_together_in_the_next(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    batcher = make(gate)
    futures = ask_behind(pool, gate, batcher, [["a"], ["b", "c"], ["d"]])
    gate.let_through.release(2)
    results = [future.result(10) for future in futures]
    assert results == [["FIRST"], ["A"], ["B", "C"], ["D"]]
    assert gate.asked == [["first"], ["a", "b", "c", "d"]]


def test_a_request_has_no_more_than_the_most_items_but_any_single_call(
    pool: ThreadPoolExecutor,
) -> None:
    gate = Gate()
    batcher = make(gate, max_items=3)
    futures = ask_behind(pool, gate, batcher, [["a", "b"], ["c", "d"], list("efgh"), ["i"]])
    gate.let_through.release(5)
    assert [len(future.result(10)) for future in futures] == [1, 2, 2, 4, 1]
    assert gate.asked == [["first"], ["a", "b"], ["c", "d"], list("efgh"), ["i"]]


def test_a_lone_call_is_sent_at_once() -> None:
    gate = Gate()
    gate.let_through.release(3)
    batcher = make(gate)
    assert [batcher.ask([item]) for item in "abc"] == [["A"], ["B"], ["C"]]
    assert gate.asked == [["a"], ["b"], ["c"]]


def test_a_refused_query_fails_only_the_call_that_it_belongs_to(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    gate.fails = lambda items: (
        TransportError("answered 400", http_status=400) if "bad" in items else None
    )
    batcher = make(gate)
    futures = ask_behind(pool, gate, batcher, [["a"], ["bad"], ["c"]])
    gate.let_through.release(5)
    assert [futures[place].result(10) for place in (0, 1, 3)] == [["FIRST"], ["A"], ["C"]]
    with pytest.raises(TransportError, match="400"):
        futures[2].result(10)
    assert gate.asked[:2] == [["first"], ["a", "bad", "c"]]
    assert sorted(gate.asked[2:]) == [["a"], ["bad"], ["c"]]


@pytest.mark.parametrize("members", [{}, {"http_status": 503}])
def test_a_service_that_is_down_fails_the_calls_together_without_asking_again(
    pool: ThreadPoolExecutor, members: dict[str, int]
) -> None:
    gate = Gate()
    gate.fails = lambda items: None if "first" in items else TransportError("down", **members)
    batcher = make(gate)
    futures = ask_behind(pool, gate, batcher, [["a"], ["b"]])
    gate.let_through.release(2)
    errors = [future.exception(10) for future in futures[1:]]
    assert all(isinstance(error, TransportError) for error in errors)
    assert errors[0] is not errors[1]
    assert len(gate.asked) == 2


def test_after_a_failure_the_next_call_is_sent(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    gate.fails = lambda items: ZeroDivisionError() if "first" in items else None
    batcher = make(gate)
    futures = ask_behind(pool, gate, batcher, [["a"]])
    gate.let_through.release(3)
    assert isinstance(futures[0].exception(10), ZeroDivisionError)
    assert futures[1].result(10) == ["A"]
    assert batcher.ask(["b"]) == ["B"]


def test_a_call_whose_turn_does_not_come_gives_up(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    batcher = make(gate, deadline_s=0.05)
    futures = ask_behind(pool, gate, batcher, [])
    late = pool.submit(batcher.ask, ["late"])
    with pytest.raises(TransportError, match=r"the test service did not answer within 0\.05 s"):
        late.result(10)
    gate.let_through.release(2)
    assert futures[0].result(10) == ["FIRST"]
    assert batcher.ask(["b"]) == ["B"]
    assert gate.asked == [["first"], ["b"]]


@pytest.mark.parametrize("has_turn", [False, True])
def test_an_interrupted_call_does_not_stop_the_others(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, has_turn: bool
) -> None:
    gate = Gate()
    batcher = make(gate)
    futures = ask_behind(pool, gate, batcher, [])

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if has_turn:
                gate.let_through.release()
                super().wait(10)
                futures.append(pool.submit(batcher.ask, ["next"]))
                until_waiting(batcher, 2)
            raise KeyboardInterrupt

    plain = module._Call[str, str]

    class InterruptedCall(plain):
        def __init__(self, items: Sequence[str]) -> None:
            super().__init__(items)
            self.woken = Interrupted()
            monkeypatch.setattr(module, "_Call", {(module.ItemT, module.ResultT): plain})

    key = (module.ItemT, module.ResultT)
    monkeypatch.setattr(module, "_Call", {key: InterruptedCall})
    with pytest.raises(KeyboardInterrupt):
        batcher.ask(["interrupted"])
    gate.let_through.release(3)
    assert [future.result(10) for future in futures] == [["FIRST"], ["NEXT"]][: len(futures)]
    assert batcher.ask(["b"]) == ["B"]


def test_no_answer_goes_to_another_call(pool: ThreadPoolExecutor) -> None:
    def send(items: Sequence[str]) -> list[str]:
        return [item.upper() for item in items]

    batcher = Batcher(send, "the test service", max_items=5, deadline_s=10)
    asked = [[f"q{number}-{part}" for part in range(number % 4)] for number in range(300)]
    for items, found in zip(asked, pool.map(batcher.ask, asked), strict=True):
        assert found == [item.upper() for item in items]
