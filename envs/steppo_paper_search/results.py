"""Results of a service that are asked for once and kept: the samples of a group see the same."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["SharedResults"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SharedResults(Generic[K, V]):
    """The latest results by what they answer, for all threads of a process.

    Whoever asks what somebody is asking already waits for that answer. A failure reaches all who
    wait for it and is not kept.

    Args:
        capacity: Results kept at most; the one not used for longest goes first.

    >>> results = SharedResults[str, int](capacity=2)
    >>> results.get("four", lambda: 4), results.get("four", lambda: 5)
    (4, 4)
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._futures: OrderedDict[K, Future[V]] = OrderedDict()

    def get(self, key: K, ask: Callable[[], V]) -> V:
        """Return what is known under a key, or ask for it. `ask` must end by itself."""
        mine: Future[V] = Future()
        with self._lock:
            future = self._futures.setdefault(key, mine)
            self._futures.move_to_end(key)
            if len(self._futures) > self._capacity:
                self._futures.popitem(last=False)
        if future is not mine:
            return future.result()
        try:
            result = ask()
        except BaseException as error:
            with self._lock:
                if self._futures.get(key) is mine:
                    del self._futures[key]
            mine.set_exception(error)
            raise
        mine.set_result(result)
        return result
