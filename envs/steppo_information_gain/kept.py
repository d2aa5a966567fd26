"""Values that were costly to get, kept up to a number."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Kept"]

ValueT = TypeVar("ValueT")


class Kept(Generic[ValueT]):
    """The values last asked for, by key. Safe to use from several threads.

    Two threads that ask for the same thing at the same time may both get it; an error is not kept.
    """

    def __init__(self, max_kept: int) -> None:
        self._max_kept = max_kept
        self._lock = threading.Lock()
        self._values: OrderedDict[str, ValueT] = OrderedDict()

    def get(self, key: str, find: Callable[[], ValueT]) -> ValueT:
        """Return the value of a key; when it is not here, find it and keep it."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = find()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._max_kept:
                self._values.popitem(last=False)
        return value
