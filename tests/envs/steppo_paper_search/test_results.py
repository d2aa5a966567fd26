"""Results that are asked for once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from steppo_paper_search.results import SharedResults


def test_the_one_not_used_for_longest_goes_first() -> None:
    results = SharedResults[str, int](2)
    assert [results.get(key, lambda: 1) for key in "ab"] == [1, 1]
    results.get("a", lambda: 2)
    results.get("c", lambda: 3)
    assert [results.get(key, lambda: 4) for key in "ac"] == [1, 3]
    assert results.get("b", lambda: 5) == 5


def test_who_asks_what_is_being_asked_waits_for_that_answer() -> None:
    results = SharedResults[str, int](2)
    asking, answered, joined = threading.Event(), threading.Event(), threading.Event()
    counts: list[int] = []

    def ask() -> int:
        asking.set()
        assert answered.wait(20)
        counts.append(1)
        return 7

    def join() -> int:
        joined.set()
        return results.get("key", ask)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(results.get, "key", ask)
        assert asking.wait(20)
        second = threads.submit(join)
        assert joined.wait(20)
        answered.set()
        assert (first.result(20), second.result(20)) == (7, 7)
    assert counts == [1]


def test_a_failure_is_not_kept() -> None:
    results = SharedResults[str, int](2)

    def fail() -> int:
        raise LookupError("down")

    with pytest.raises(LookupError):
        results.get("key", fail)
    assert results.get("key", lambda: 3) == 3
